// Does a device compute what it should? Wrong results of GPU drivers are the most reported fault of their kind, so every kernel is
// compared with the reference (kernels/reference) on small shapes before a device is used for the first time.
#pragma once
#include "device.h"

namespace edge::gpu {

// Throws EDGE_NO_DEVICE, with the name of the kernel that differs. That a device passed is remembered (program_cache.h).
void require_self_test(Device& device);

}  // namespace edge::gpu
