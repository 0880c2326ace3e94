# Cross compile for 64-bit ARM with Debian's g++-aarch64-linux-gnu; tests run under qemu-user.
# QEMU_CPU=cortex-a53 (or cortex-a76, max) in the environment of ctest chooses the processor.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-static")
include("${CMAKE_CURRENT_LIST_DIR}/aarch64-search.cmake")
