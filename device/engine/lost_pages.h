// Mapped pages of a file that was cut, or cannot be read any more: reading them raises SIGBUS, which would end the process.
#pragma once
#include <atomic>
#include <cstddef>

namespace edge {

// From now on a SIGBUS in these pages sets `lost` and puts zeros in place of the page and of all behind it; who reads goes on,
// and must look at `lost` before it believes what it read. Other signals go to the handler that was there before. False when too
// many places are watched: then nothing changes. The first call installs the handler of the process.
bool watch_pages(const void* pages, size_t n_bytes, std::atomic<bool>& lost);

// Before the pages are unmapped.
void forget_pages(const void* pages);

}  // namespace edge
