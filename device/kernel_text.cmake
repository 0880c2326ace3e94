# Writes the OpenCL kernels into a source file: kernels/gpu/*.cl, in this order, as edge::gpu::kKernelTexts.
set(edge_kernel_files dialect_opencl arithmetic weights rows attention mixer)
set(edge_kernel_texts "")
foreach(name IN LISTS edge_kernel_files)
  set(file "${PROJECT_SOURCE_DIR}/kernels/gpu/${name}.cl")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
  file(READ "${file}" text)
  string(APPEND edge_kernel_texts "    R\"kernel(${text})kernel\",\n")
endforeach()
set(edge_kernel_text_file "${CMAKE_CURRENT_BINARY_DIR}/kernel_text.cpp")
file(CONFIGURE OUTPUT kernel_text.cpp @ONLY CONTENT
"// Written by kernel_text.cmake.
namespace edge::gpu {
extern const char* const kKernelTexts[];
const char* const kKernelTexts[] = {
@edge_kernel_texts@    nullptr};
}  // namespace edge::gpu
")
