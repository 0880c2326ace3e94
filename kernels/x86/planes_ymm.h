// Codes of 2, 3 and 6 bits for 256-bit registers; include after the definition of IntDot (matmul_ymm.h). A plane of 2 bits is
// 32 bytes that serve both parts of a unit, one of 1 bit 16 bytes that serve the four lanes of both.
#pragma once
#include "kernels/x86/matmul_ymm.h"

namespace edge {
namespace {

inline __m256i nibbles(__m256i packed, int half) {
    return _mm256_and_si256(half == 0 ? packed : _mm256_srli_epi16(packed, 4), _mm256_set1_epi8(15));
}

// Shuffles a nibble, the 2-bit codes of positions p (low) and p + 32 (high), to the value of the one that the part needs.
struct TwoBitTables {
    __m256i part[2];
    explicit TwoBitTables(const int8_t* values) {
        alignas(32) int8_t table[64];
        for (int i = 0; i < 64; ++i) table[i] = static_cast<int8_t>(values[i < 32 ? i & 3 : i >> 2 & 3] ^ -IntDot::kFlip);
        for (int i = 0; i < 2; ++i) part[i] = _mm256_load_si256(reinterpret_cast<const __m256i*>(table + 32 * i));
    }
};

struct CodesQ2 {
    static constexpr int kUnitBytes = 32;
    TwoBitTables tables;
    explicit CodesQ2(const Panel& w) : tables(w.codebook) {}
    __m256i read(const uint8_t* unit, int part, int half) const {
        return _mm256_shuffle_epi8(tables.part[part], nibbles(load_ymm(unit), half));
    }
};

struct CodesQ3 {
    static constexpr int kUnitBytes = 48;
    __m256i table;
    explicit CodesQ3(const Panel& w) {
        const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w.codebook));
        table = _mm256_broadcastsi128_si256(_mm_xor_si128(values, _mm_set1_epi8(static_cast<char>(IntDot::kFlip))));
    }
    __m256i read(const uint8_t* unit, int part, int half) const {
        const __m256i lanes = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(unit + 32)));
        const __m256i one = _mm256_srlv_epi32(lanes, _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0)), two = load_ymm(unit);
        // Both codes of a position, in its nibbles: bits 0 and 1 out of `two`, bit 2 out of `one`.
        const __m256i low = _mm256_and_si256(part == 0 ? two : _mm256_srli_epi16(two, 2), _mm256_set1_epi8(0x33));
        const __m256i high = _mm256_and_si256(part == 0 ? _mm256_slli_epi16(one, 2) : one, _mm256_set1_epi8(0x44));
        const __m256i codes = _mm256_or_si256(low, high);
        return _mm256_shuffle_epi8(table, half == 0 ? codes : _mm256_srli_epi16(codes, 4));
    }
};

struct CodesQ6 {
    static constexpr int kUnitBytes = 96;
    static constexpr int8_t kUpper[4] = {-32, -16, 0, 16};
    TwoBitTables tables;  // of what the upper bits stand for; its values have no lower bits
    explicit CodesQ6(const Panel&) : tables(kUpper) {}
    __m256i read(const uint8_t* unit, int part, int half) const {
        const __m256i upper = _mm256_shuffle_epi8(tables.part[part], nibbles(load_ymm(unit + 64), half));
        return _mm256_or_si256(nibbles(load_ymm(unit + 32 * part), half), upper);
    }
};

}  // namespace
}  // namespace edge
