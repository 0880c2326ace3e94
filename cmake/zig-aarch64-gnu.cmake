# aarch64 programs and shared objects for glibc 2.28 and later (Jetson, Raspberry Pi OS), with the PyPI package `ziglang`.
set(EDGE_ZIG_TARGET aarch64-linux-gnu.2.28)
include("${CMAKE_CURRENT_LIST_DIR}/zig.cmake")
