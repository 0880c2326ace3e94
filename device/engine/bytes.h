// Arithmetic on byte counts that never wraps: what does not fit 64 bits becomes kTooManyBytes.
#pragma once
#include <cstdint>
#include <string>

namespace edge {

inline constexpr uint64_t kTooManyBytes = UINT64_MAX;

inline uint64_t add_bytes(uint64_t a, uint64_t b) {
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? kTooManyBytes : sum;
}

inline uint64_t multiply_bytes(uint64_t a, uint64_t b) {
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? kTooManyBytes : product;
}

// Rounded up to a multiple of `alignment`, a power of two.
inline uint64_t align_bytes(uint64_t a, uint64_t alignment) {
    const uint64_t sum = add_bytes(a, alignment - 1);
    return sum == kTooManyBytes ? sum : sum & ~(alignment - 1);
}

// "71.5 MiB", as people read it in messages; rounded up, so that what is named suffices. Below 1 MiB: "1234 bytes".
inline std::string mebibytes(uint64_t bytes) {
    if (bytes < 1 << 20) return std::to_string(bytes) + " bytes";
    const uint64_t tenths = bytes / (1 << 20) * 10 + ((bytes % (1 << 20)) * 10 + (1 << 20) - 1) / (1 << 20);
    return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " MiB";
}

}  // namespace edge
