# aarch64 programs and shared objects for glibc 2.28 and later (Jetson, Raspberry Pi OS), with the PyPI package `ziglang`.
set(EDGE_ZIG_TARGET aarch64-linux-gnu.2.28)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-s")
set(CMAKE_SHARED_LINKER_FLAGS_INIT "-s")
include("${CMAKE_CURRENT_LIST_DIR}/zig.cmake")
