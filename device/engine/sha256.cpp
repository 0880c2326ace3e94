#include "sha256.h"

#include <bit>
#include <cstring>

namespace edge {

alignas(64) const uint32_t kSha256Constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

namespace {

uint32_t load_big_endian(const uint8_t* p) {
    return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | uint32_t{p[3]};
}

void blocks_portable(uint32_t state[8], const uint8_t* data, size_t n_blocks) {
    for (; n_blocks > 0; --n_blocks, data += 64) {
        uint32_t w[64];
        for (int i = 0; i < 16; ++i) w[i] = load_big_endian(data + 4 * i);
        for (int i = 16; i < 64; ++i) {
            const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
            const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        for (int i = 0; i < 64; ++i) {
            const uint32_t big1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
            const uint32_t t1 = h + big1 + ((e & f) ^ (~e & g)) + kSha256Constants[i] + w[i];
            const uint32_t big0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
            const uint32_t t2 = big0 + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

Sha256::Blocks* fastest() {
    if (auto* blocks = sha256_x86()) return blocks;
    if (auto* blocks = sha256_arm()) return blocks;
    return blocks_portable;
}

}  // namespace

Sha256::Sha256(bool portable)
    : blocks_(portable ? blocks_portable : fastest()),
      state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19} {}

void Sha256::update(const void* data, size_t n_bytes) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    n_total_ += n_bytes;
    if (n_tail_ > 0) {
        const size_t take = n_bytes < 64 - n_tail_ ? n_bytes : 64 - n_tail_;
        std::memcpy(tail_ + n_tail_, bytes, take);
        n_tail_ += take, bytes += take, n_bytes -= take;
        if (n_tail_ < 64) return;
        blocks_(state_, tail_, 1);
        n_tail_ = 0;
    }
    blocks_(state_, bytes, n_bytes / 64);
    n_tail_ = n_bytes % 64;
    if (n_tail_ > 0) std::memcpy(tail_, bytes + n_bytes - n_tail_, n_tail_);
}

std::array<uint8_t, 32> Sha256::finish() {
    const uint64_t n_bits = n_total_ * 8;
    uint8_t padding[72] = {0x80};
    const size_t n_zeros = (n_tail_ < 56 ? 56 : 120) - n_tail_;
    for (int i = 0; i < 8; ++i) padding[n_zeros + i] = static_cast<uint8_t>(n_bits >> (56 - 8 * i));
    update(padding, n_zeros + 8);
    std::array<uint8_t, 32> digest;
    for (int i = 0; i < 32; ++i) digest[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
    return digest;
}

std::array<char, 64> hex_digits(const std::array<uint8_t, 32>& digest) noexcept {
    std::array<char, 64> digits;
    for (size_t i = 0; i < digest.size(); ++i) {
        digits[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        digits[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    return digits;
}

std::string hex(const std::array<uint8_t, 32>& digest) {
    const auto digits = hex_digits(digest);
    return {digits.data(), digits.size()};
}

}  // namespace edge
