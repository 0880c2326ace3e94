// The kernels of kernels/gpu as OpenCL C; the build writes them into the program (kernel_text.cmake).
#pragma once
#include <string>

namespace edge::gpu {

std::string kernel_source();

#ifdef EDGE_FAULTS
// Only in builds with tests, until it is called again: the source as if `from`, which it must contain, read `to` (empty: unharmed),
// and a self-test that looks at one kernel only (empty: at all).
void set_source_fault(const std::string& from, const std::string& to, const std::string& kernel);
const std::string& faulty_kernel();
#endif

}  // namespace edge::gpu
