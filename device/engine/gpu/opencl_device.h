// A device of OpenCL.
#pragma once
#include <memory>

#include "device.h"

namespace edge::gpu {

// The first GPU, or without `only_gpu` the first device where there is none; EDGE_OPENCL_DEVICE (a part of its name) chooses another
// one. Its programs come from the program cache, or are compiled. Throws EDGE_NO_DEVICE.
// `plain`: without extensions of OpenCL C 1.2.
std::shared_ptr<Device> open_opencl(bool only_gpu, bool plain);

}  // namespace edge::gpu
