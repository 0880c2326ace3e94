# Shared by the aarch64 toolchain files: how to run what was built, and what may be found on the build machine.
find_program(EDGE_QEMU NAMES qemu-aarch64-static qemu-aarch64)
if(EDGE_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${EDGE_QEMU}")
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE BOTH)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE BOTH)
