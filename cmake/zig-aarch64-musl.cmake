# Static aarch64 programs for any Linux, Android's shell included, with the clang of the PyPI package `ziglang`.
set(EDGE_ZIG_TARGET aarch64-linux-musl)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-static -s")
include("${CMAKE_CURRENT_LIST_DIR}/zig.cmake")
