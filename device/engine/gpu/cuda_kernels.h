// The kernels of kernels/gpu as nvcc compiled them: machine code for several GPUs, and PTX for the others.
#pragma once
#include <span>

namespace edge::gpu {

// Empty where the build had no nvcc.
std::span<const unsigned char> cuda_kernels();

}  // namespace edge::gpu
