// What a session remembers, on its way between this machine's memory and a device's.
#pragma once
#include "device_memory.h"
#include "session_memory.h"

namespace edge::gpu {

// Keys and values of tokens first .. last - 1, and the mixers' states. Both sides are of one level.
void copy_to_device(const LevelMemory& from, const DeviceMemory& to, int64_t first, int64_t last);
void copy_from_device(const DeviceMemory& from, const LevelMemory& to, int64_t first, int64_t last);

}  // namespace edge::gpu
