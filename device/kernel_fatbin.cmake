# With -DEDGE_NVCC=/path/to/nvcc (or a name on PATH): kernels/gpu for NVIDIA's GPUs, as machine code for Jetson Orin (sm_87), Hopper
# (sm_90) and Jetson Thor (sm_110) and as PTX, which drivers compile for any other GPU from Turing on. `edge_fatbin` is the file, empty
# without nvcc. No rounding is left to the compiler: what is fused says so, divisions and square roots round to the nearest.
set(EDGE_NVCC "" CACHE STRING "nvcc, for the CUDA backend; empty: none")
set(edge_fatbin "")
if(EDGE_NVCC)
  find_program(edge_nvcc NAMES "${EDGE_NVCC}" NO_CACHE REQUIRED)
  set(edge_fatbin "${CMAKE_CURRENT_BINARY_DIR}/kernels.fatbin")
  file(GLOB edge_cuda_files CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/gpu/*.c[lu]")
  add_custom_command(OUTPUT "${edge_fatbin}"
    COMMAND "${edge_nvcc}" -fatbin -O3 -std=c++17 -fmad=false -prec-div=true -prec-sqrt=true -ftz=false -Werror all-warnings
      -gencode arch=compute_87,code=sm_87 -gencode arch=compute_90,code=sm_90 -gencode arch=compute_110,code=sm_110
      -gencode arch=compute_75,code=compute_75 -o "${edge_fatbin}" "${PROJECT_SOURCE_DIR}/kernels/gpu/kernels.cu"
    DEPENDS ${edge_cuda_files} COMMENT "Compiling the CUDA kernels" VERBATIM)
endif()
