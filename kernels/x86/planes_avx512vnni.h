// Codes of 2, 3 and 6 bits for 512-bit registers. A plane of 2 bits is 32 bytes that serve both halves of a register, one of
// 1 bit 16 bytes that serve all four lanes: each lane takes its own bits, by a table of its own or by a shift of its own.
#pragma once
#include "kernels/x86/matmul_avx512vnni.h"

namespace edge {
namespace {

inline __m512i both_halves(const uint8_t* p) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// Shuffles a nibble, the 2-bit codes of positions p (low) and p + 32 (high), to the value of the one that the lane needs.
inline __m512i two_bit_table(const int8_t* values) {
    alignas(64) int8_t table[64];
    for (int i = 0; i < 64; ++i) table[i] = static_cast<int8_t>(values[i < 32 ? i & 3 : i >> 2 & 3] ^ -128);
    return _mm512_load_si512(table);
}

struct CodesQ2 {
    static constexpr int kUnitBytes = 32;
    __m512i table;
    explicit CodesQ2(const Panel& w) : table(two_bit_table(w.codebook)) {}
    Columns read(const uint8_t* unit) const {
        const __m512i mask = _mm512_set1_epi8(15), packed = both_halves(unit);
        return {_mm512_shuffle_epi8(table, _mm512_and_si512(packed, mask)),
                _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask))};
    }
};

struct CodesQ3 {
    static constexpr int kUnitBytes = 48;
    __m512i table;
    explicit CodesQ3(const Panel& w) {
        const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w.codebook));
        table = _mm512_broadcast_i32x4(_mm_xor_si128(values, _mm_set1_epi8(-128)));
    }
    Columns read(const uint8_t* unit) const {
        const __m512i two = _mm512_rorv_epi32(both_halves(unit), _mm512_set_epi32(2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0));
        const __m512i one = _mm512_rolv_epi32(
            _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(unit + 32))),
            _mm512_set_epi32(31, 31, 31, 31, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2));
        // Both codes of a position, in its nibbles: bits 0 and 1 out of `two`, bit 2 out of `one`.
        const __m512i both = _mm512_ternarylogic_epi32(_mm512_set1_epi8(0x33), two, one, 0xca);
        const __m512i codes = _mm512_and_si512(both, _mm512_set1_epi8(0x77));
        return {_mm512_shuffle_epi8(table, codes), _mm512_shuffle_epi8(table, _mm512_srli_epi16(codes, 4))};
    }
};

struct CodesQ6 {
    static constexpr int kUnitBytes = 96;
    __m512i table;  // of what the upper bits stand for; its values have no lower bits
    explicit CodesQ6(const Panel&) {
        constexpr int8_t kUpper[4] = {-32, -16, 0, 16};
        table = two_bit_table(kUpper);
    }
    Columns read(const uint8_t* unit) const {
        const __m512i mask = _mm512_set1_epi8(15), lower = _mm512_loadu_si512(unit), upper = both_halves(unit + 64);
        const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(upper, mask));
        const __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(upper, 4), mask));
        constexpr int kAndOr = 0xea;
        return {_mm512_ternarylogic_epi32(lower, mask, low, kAndOr),
                _mm512_ternarylogic_epi32(_mm512_srli_epi16(lower, 4), mask, high, kAndOr)};
    }
};

}  // namespace
}  // namespace edge
