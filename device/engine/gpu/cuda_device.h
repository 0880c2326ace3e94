// A device of CUDA.
#pragma once
#include <memory>

#include "device.h"

namespace edge::gpu {

// The first device. Throws EDGE_NO_DEVICE.
std::shared_ptr<Device> open_cuda();

}  // namespace edge::gpu
