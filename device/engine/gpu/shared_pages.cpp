#include "shared_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "errors.h"
#include "lost_pages.h"
#include "mapping.h"

namespace edge::gpu {
namespace {

constexpr uint64_t kTrialBytes = 64 << 10;

// A kernel adds what it reads there to zeros. Numbers that a device may flush to zero, and what is none, are not compared.
bool kernels_read(Device& device, const void* pages, uint64_t n_bytes) {
    std::vector<float> expected(n_bytes / sizeof(float)), found(expected.size(), 0.0f);
    std::memcpy(expected.data(), pages, n_bytes);
    const Buffer shared = Buffer::shared(device, pages, n_bytes), sums(device, n_bytes);
    sums.write(0, found.data(), n_bytes);
    device.launch(Kernel::add_bias, 1, 1, {sums, sums, shared, 0, -1, -1, 0, 0.0f, static_cast<int32_t>(found.size())});
    sums.read(0, found.data(), n_bytes);
    return std::equal(expected.begin(), expected.end(), found.begin(), [](float right, float given) {
        return !std::isnormal(right) || given == right;
    });
}

// Takes the pages over.
bool try_pages(Device& device, void* pages, uint64_t n_bytes) {
    if (pages == MAP_FAILED) return false;
    std::atomic<bool> passed{false};
    MappedRun run({0, n_bytes}, 0, passed);
    run.pages = pages;
    run.n_page_bytes = static_cast<size_t>(n_bytes);
    watch_pages(pages, run.n_page_bytes, run.lost);
    try {
        return kernels_read(device, pages, n_bytes) && !run.lost;
    } catch (const Error&) {
        return false;
    }
}

}  // namespace

bool can_share_file(Device& device, int file, uint64_t header_bytes) {
    if (!device.info().shares_memory) return false;
    const auto n_bytes = static_cast<size_t>(std::min(header_bytes, kTrialBytes));
    return try_pages(device, mmap(nullptr, n_bytes, PROT_READ, MAP_PRIVATE, file, 0), n_bytes);
}

bool can_share_copies(Device& device) {
    if (!device.info().shares_memory) return false;
    void* pages = mmap(nullptr, kTrialBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages != MAP_FAILED) {
        std::memset(pages, 'e', kTrialBytes);
        mprotect(pages, kTrialBytes, PROT_READ);
    }
    return try_pages(device, pages, kTrialBytes);
}

}  // namespace edge::gpu
