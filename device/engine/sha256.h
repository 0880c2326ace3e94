// SHA-256 (FIPS 180-4), with the processor's own instructions where it has them.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace edge {

// Hashes data as it comes: update() any number of times, then finish() once.
class Sha256 {
public:
    // Chosen at run time; `portable` (for tests) keeps to plain C++.
    explicit Sha256(bool portable = false);
    void update(const void* data, size_t n_bytes);
    std::array<uint8_t, 32> finish();

    // The block function takes whole 64-byte blocks.
    using Blocks = void(uint32_t state[8], const uint8_t* data, size_t n_blocks);

private:
    Blocks* blocks_;
    uint32_t state_[8];
    uint8_t tail_[64];
    size_t n_tail_ = 0;
    uint64_t n_total_ = 0;
};

// Lower-case hex of a digest.
std::array<char, 64> hex_digits(const std::array<uint8_t, 32>& digest) noexcept;
std::string hex(const std::array<uint8_t, 32>& digest);

// Block functions per instruction set; the second kind is nullptr where the build or this processor lacks it.
extern const uint32_t kSha256Constants[64];
Sha256::Blocks* sha256_x86();  // SHA-NI
Sha256::Blocks* sha256_arm();  // Armv8 SHA2

}  // namespace edge
