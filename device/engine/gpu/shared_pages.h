// Pages of the host that kernels read where they lie, on devices that share its memory.
#pragma once
#include <cstdint>

#include "device.h"

namespace edge::gpu {

// Of one buffer: the tables of tiles (upload.h) count 16 bytes in 32 bits.
inline constexpr uint64_t kMostSharedBytes = uint64_t{16} << 32;

// Whether kernels can read pages of this file, mapped as levels are, and whether those of a read-only copy in this process. Both are
// tried out on a few pages; of the file those of its header, of this length.
bool can_share_file(Device& device, int file, uint64_t header_bytes);
bool can_share_copies(Device& device);

}  // namespace edge::gpu
