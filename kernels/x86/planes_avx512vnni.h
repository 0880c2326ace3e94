// Codes of 2, 3 and 6 bits for 512-bit registers. A plane of 2 bits is 32 bytes that serve both halves of a register, one of
// 1 bit 16 bytes that serve all four lanes: each lane picks its own bits by a table of its own.
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

// A nibble holds the two low bits of a code, where the plane of 2 has them, and two of the plane of 1, of which the lane's own
// is at another place in every lane.
struct CodesQ3 {
    static constexpr int kUnitBytes = 48;
    __m512i table;
    explicit CodesQ3(const Panel& w) {
        alignas(64) int8_t values[64];
        for (int i = 0; i < 64; ++i) {
            const int lane = i / 16, low = lane < 2 ? i & 3 : i >> 2 & 3, high = i >> (lane ^ 2) & 1;
            values[i] = static_cast<int8_t>(w.codebook[low | high << 2] ^ -128);
        }
        table = _mm512_load_si512(values);
    }
    Columns read(const uint8_t* unit) const {
        const __m512i mask = _mm512_set1_epi8(15);
        const __m512i where = _mm512_inserti64x4(_mm512_set1_epi8(0x33), _mm256_set1_epi8(static_cast<char>(0xcc)), 1);
        const __m512i one = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(unit + 32)));
        constexpr int kSelect = 0xca;
        const __m512i packed = _mm512_ternarylogic_epi32(where, both_halves(unit), one, kSelect);
        return {_mm512_shuffle_epi8(table, _mm512_and_si512(packed, mask)),
                _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask))};
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
