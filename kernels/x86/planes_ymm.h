// Codes of 2, 3 and 6 bits for 256-bit registers; include after the definition of NarrowDot (matmul_ymm.h). A plane of 2 bits is
// 32 bytes that serve both parts of a unit, one of 1 bit 16 bytes that serve the four lanes of both: each lane picks its own
// bits by a table of its own.
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
        for (int i = 0; i < 64; ++i) table[i] = static_cast<int8_t>(values[i < 32 ? i & 3 : i >> 2 & 3] + NarrowDot::kFlip);
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

// A nibble holds the two low bits of a code, where the plane of 2 has them, and two of the plane of 1, of which the lane's own
// is at another place in every lane.
struct CodesQ3 {
    static constexpr int kUnitBytes = 48;
    __m256i table[2];
    explicit CodesQ3(const Panel& w) {
        alignas(32) int8_t values[64];
        for (int i = 0; i < 64; ++i) {
            const int lane = i / 16, low = lane < 2 ? i & 3 : i >> 2 & 3, high = i >> (lane ^ 2) & 1;
            values[i] = static_cast<int8_t>(w.codebook[low | high << 2] + NarrowDot::kFlip);
        }
        for (int i = 0; i < 2; ++i) table[i] = _mm256_load_si256(reinterpret_cast<const __m256i*>(values + 32 * i));
    }
    __m256i read(const uint8_t* unit, int part, int half) const {
        const __m256i two = load_ymm(unit);
        const __m256i one = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(unit + 32)));
        const __m256i swap = _mm256_and_si256(_mm256_xor_si256(two, one), _mm256_set1_epi8(0x33));
        return _mm256_shuffle_epi8(table[part], nibbles(_mm256_xor_si256(part == 0 ? one : two, swap), half));
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
