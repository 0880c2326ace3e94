// The parts of matmul_driver.h for 256-bit registers: one register is 8 rows x 4 columns.
// Include after the definition of `ByteDot` (8-bit codes) and `NarrowDot` (all others: values from -32 to 31): how the two
// halves of a unit, 32 bytes of weights each, meet 4 activations each, repeated 8 times.
//   kAhead: bytes of codes between a prefetch and its use
//   kFlip: added to the weights (unsigned weights, and the sums start at -kFlip * sum(activations); or 0)
//   Weight, prepare(w), add(sums, weights, a)    weights that meet several tokens
//   once(a), add_once(sums, w, a)                activations that meet several weights; sums: two that are added at the end
#pragma once
#include <immintrin.h>

#include "kernels/matmul_driver.h"

namespace edge {
namespace {

inline __m256i load_ymm(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

inline __m256 widen_halves(const uint16_t* halves) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves)));
}

struct CodesQ4 {
    static constexpr int kUnitBytes = 64;
    __m256i table;
    explicit CodesQ4(const Panel& w) {
        const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w.codebook));
        table = _mm256_broadcastsi128_si256(_mm_add_epi8(values, _mm_set1_epi8(static_cast<char>(NarrowDot::kFlip))));
    }
    // Rows 8 * part .. 8 * part + 7 of the columns 0..3 (half 0) or 4..7.
    __m256i read(const uint8_t* unit, int part, int half) const {
        const __m256i packed = load_ymm(unit + 32 * part), mask = _mm256_set1_epi8(15);
        return _mm256_shuffle_epi8(table, _mm256_and_si256(half == 0 ? packed : _mm256_srli_epi16(packed, 4), mask));
    }
};

struct CodesQ8 {
    static constexpr int kUnitBytes = 128;
    explicit CodesQ8(const Panel&) {}
    __m256i read(const uint8_t* unit, int part, int half) const {
        const __m256i values = load_ymm(unit + 64 * half + 32 * part);
        return ByteDot::kFlip == 0 ? values : _mm256_add_epi8(values, _mm256_set1_epi8(static_cast<char>(ByteDot::kFlip)));
    }
};

inline __m256i four_columns(const int8_t* a) {
    int32_t word;
    __builtin_memcpy(&word, a, 4);
    return _mm256_set1_epi32(word);
}

template <class Dot>
struct Ymm {
    static constexpr int kTiles = 1, kTokens = 4;  // tokens whose sums fit the registers

    struct Sum {
        __m256 v[2];
        explicit Sum(const float* acc) : v{_mm256_load_ps(acc), _mm256_load_ps(acc + 8)} {}
        void store(float* acc) const {
            _mm256_store_ps(acc, v[0]);
            _mm256_store_ps(acc + 8, v[1]);
        }
    };

    static void widen(const uint16_t* halves, float* out) {
        _mm256_store_ps(out, widen_halves(halves));
        _mm256_store_ps(out + 8, widen_halves(halves + 8));
    }

    template <class Codes>
    [[gnu::always_inline]] static inline void step(const Codes& codes, const uint8_t* unit, int n_units, const uint16_t* scales,
                                                   const Rows& row, Sum& sum) {
        const __m256i start = _mm256_set1_epi32(-Dot::kFlip * *row.sums);
        __m256i sums[2][2] = {{start, _mm256_setzero_si256()}, {start, _mm256_setzero_si256()}};
        for (int u = 0; u < n_units; ++u, unit += Codes::kUnitBytes) {
            if constexpr (Codes::kUnitBytes < 128) {  // every line of the unit
                const char* ahead = reinterpret_cast<const char*>(unit + Dot::kAhead);
                for (int line = 0; line < Codes::kUnitBytes; line += 64) _mm_prefetch(ahead + line, _MM_HINT_T0);
            }
            const int8_t* columns = row.codes + 8 * u;
            const auto a = Dot::once(four_columns(columns)), b = Dot::once(four_columns(columns + 4));
            for (int part = 0; part < 2; ++part) Dot::add_once(sums[part], codes.read(unit, part, 0), a, codes.read(unit, part, 1), b);
        }
        for (int part = 0; part < 2; ++part) {
            const __m256 scale = _mm256_mul_ps(widen_halves(scales + 8 * part), _mm256_set1_ps(*row.scales));
            const __m256 total = _mm256_cvtepi32_ps(_mm256_add_epi32(sums[part][0], sums[part][1]));
            sum.v[part] = _mm256_fmadd_ps(total, scale, sum.v[part]);
        }
    }

    template <class Codes>
    static void unpack(const Codes& codes, const uint8_t* unit, int n_units, uint8_t* out, int unit_stride) {
        for (int u = 0; u < n_units; ++u, unit += Codes::kUnitBytes, out += unit_stride) {
            for (int i = 0; i < 4; ++i) {
                _mm256_store_si256(reinterpret_cast<__m256i*>(out + 32 * i), codes.read(unit, i % 2, i / 2));
            }
        }
    }

    template <int kBlockTiles, int kBlockTokens>
    static void block(const Chunk& chunk, const Rows& rows, float* y, int64_t y_stride, bool accumulate) {
        block_by_groups<Ymm, kBlockTiles, kBlockTokens>(chunk, rows, y, y_stride, accumulate);
    }

    template <int kBlockTiles, int kBlockTokens>
    static void group(const uint8_t* weights, int n_units, const float* scales, const Rows& rows, float* y, int64_t y_stride) {
        static_assert(kBlockTiles == 1);
        const auto codes = tokens_of<kBlockTokens>(rows.codes, rows.stride);
        const auto outputs = tokens_of<kBlockTokens>(y, y_stride);
        __m256i sums[kBlockTokens][2];
        for (int t = 0; t < kBlockTokens; ++t) {
            const __m256i flipped = _mm256_mullo_epi32(_mm256_set1_epi32(rows.sums[t * rows.group_stride]), _mm256_set1_epi32(-Dot::kFlip));
            sums[t][0] = sums[t][1] = flipped;
        }
        for (int u = 0; u < n_units; ++u, weights += kUnpackedBytes) {
            const auto low0 = Dot::prepare(load_ymm(weights)), low1 = Dot::prepare(load_ymm(weights + 32));
            const auto high0 = Dot::prepare(load_ymm(weights + 64)), high1 = Dot::prepare(load_ymm(weights + 96));
            for (int t = 0; t < kBlockTokens; ++t) {
                const int8_t* columns = codes.at(t) + 8 * u;
                const __m256i a = four_columns(columns), b = four_columns(columns + 4);
                sums[t][0] = Dot::add(sums[t][0], low0, a, high0, b);
                sums[t][1] = Dot::add(sums[t][1], low1, a, high1, b);
                __asm__("" : "+x"(sums[t][0]), "+x"(sums[t][1]));  // added now, or gcc keeps products in memory
            }
        }
        for (int t = 0; t < kBlockTokens; ++t) {
            const __m256 a_scale = _mm256_set1_ps(rows.scales[t * rows.group_stride]);
            for (int part = 0; part < 2; ++part) {
                float* out = outputs.at(t) + 8 * part;
                const __m256 scale = _mm256_mul_ps(_mm256_load_ps(scales + 8 * part), a_scale);
                _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[t][part]), scale, _mm256_loadu_ps(out)));
            }
        }
    }
};

}  // namespace
}  // namespace edge
