# Shared by the zig toolchain files: finds zig on PATH or in the PyPI package `ziglang`, and makes it the compiler for
# EDGE_ZIG_TARGET. The first build for a target compiles libc++ (about a minute), later ones use zig's cache.
find_program(EDGE_ZIG zig)
if(NOT EDGE_ZIG)
  find_program(EDGE_ZIG_PYTHON NAMES python3 python HINTS "$ENV{VIRTUAL_ENV}/bin")
  execute_process(
    COMMAND "${EDGE_ZIG_PYTHON}" -c
            "import importlib.util as u, pathlib as p; print(p.Path(u.find_spec('ziglang').origin).parent / 'zig')"
    OUTPUT_VARIABLE edge_zig_path OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE edge_zig_status)
  if(NOT edge_zig_status EQUAL 0)
    message(FATAL_ERROR "zig was not found.\nhint: `pip install ziglang` into the active environment, or give -DEDGE_ZIG=PATH")
  endif()
  set(EDGE_ZIG "${edge_zig_path}" CACHE FILEPATH "The zig program" FORCE)
endif()
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EDGE_ZIG)

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER "${EDGE_ZIG};c++;-target;${EDGE_ZIG_TARGET}")
set(CMAKE_CXX_ARCHIVE_CREATE "${EDGE_ZIG} ar qc <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_APPEND "${EDGE_ZIG} ar q <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "${EDGE_ZIG} ranlib <TARGET>")
include("${CMAKE_CURRENT_LIST_DIR}/aarch64-search.cmake")
