// The parts of matmul_driver.h for 512-bit vpdpbusd: one register is 16 rows x 4 columns.
// vpdpbusd multiplies unsigned by signed bytes, so values enter as value + 128 and the sums start at -128 * sum(activations).
#pragma once
#include <immintrin.h>

#include "kernels/matmul_driver.h"

namespace edge {
namespace {

struct Columns {  // a unit as value + 128: columns 0..3 and 4..7 of 16 rows
    __m512i low, high;
};

struct CodesQ4 {
    static constexpr int kUnitBytes = 64;
    __m512i table;
    explicit CodesQ4(const Panel& w) {
        const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w.codebook));
        table = _mm512_broadcast_i32x4(_mm_xor_si128(values, _mm_set1_epi8(-128)));
    }
    Columns read(const uint8_t* unit) const {
        const __m512i mask = _mm512_set1_epi8(15), packed = _mm512_loadu_si512(unit);
        return {_mm512_shuffle_epi8(table, _mm512_and_si512(packed, mask)),
                _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask))};
    }
};

struct CodesQ8 {
    static constexpr int kUnitBytes = 128;
    explicit CodesQ8(const Panel&) {}
    Columns read(const uint8_t* unit) const {
        const __m512i flip = _mm512_set1_epi8(-128);
        return {_mm512_xor_si512(_mm512_loadu_si512(unit), flip), _mm512_xor_si512(_mm512_loadu_si512(unit + 64), flip)};
    }
};

inline __m512i four_columns(const int8_t* a) {
    int32_t word;
    __builtin_memcpy(&word, a, 4);
    return _mm512_set1_epi32(word);
}

// An integer n, |n| <= 2^22, as the bits of 1.5 * 2^23 + n: one subtraction, on pipes that the products leave free, turns
// the sums that began at kMagicBits into floats. Sums stay below 2^22 (kMaxGroup * 128 * 127).
constexpr int32_t kMagicBits = 0x4b400000;
constexpr float kMagic = 12582912.0f;
inline __m512 float_of(__m512i magic_sums) { return _mm512_sub_ps(_mm512_castsi512_ps(magic_sums), _mm512_set1_ps(kMagic)); }

struct Vnni512 {
    static constexpr int kTiles = 2, kTokens = 6;
    static constexpr int kAhead = 4096;  // bytes of codes between a prefetch and its use, as measured (docs/SPEED.md)

    struct Sum {
        __m512 v;
        explicit Sum(const float* acc) : v(_mm512_load_ps(acc)) {}
        void store(float* acc) const { _mm512_store_ps(acc, v); }
    };

    static void widen(const uint16_t* halves, float* out) {
        _mm512_store_ps(out, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves))));
    }

    template <class Codes>
    [[gnu::always_inline]] static inline void step(const Codes& codes, const uint8_t* unit, int n_units, const uint16_t* scales,
                                                   const Rows& row, Sum& sum) {
        __m512i low = _mm512_set1_epi32(kMagicBits), high = _mm512_setzero_si512();
        for (int u = 0; u < n_units; ++u, unit += Codes::kUnitBytes) {
            if (Codes::kUnitBytes <= kPrefetchLine) _mm_prefetch(reinterpret_cast<const char*>(unit + kAhead), _MM_HINT_T0);
            const Columns w = codes.read(unit);
            low = _mm512_dpbusd_epi32(low, w.low, four_columns(row.codes + 8 * u));
            high = _mm512_dpbusd_epi32(high, w.high, four_columns(row.codes + 8 * u + 4));
        }
        const __m512 w_scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
        const __m512 scale = _mm512_mul_ps(w_scale, _mm512_set1_ps(*row.scales));
        const float offset = kMagic + 128.0f * static_cast<float>(*row.sums);  // exact: below 2^24
        const __m512 total = _mm512_sub_ps(_mm512_castsi512_ps(_mm512_add_epi32(low, high)), _mm512_set1_ps(offset));
        sum.v = _mm512_fmadd_ps(total, scale, sum.v);
    }

    template <class Codes>
    static void unpack(const Codes& codes, const uint8_t* unit, int n_units, uint8_t* out, int unit_stride) {
        for (int u = 0; u < n_units; ++u, unit += Codes::kUnitBytes, out += unit_stride) {
            const Columns w = codes.read(unit);
            _mm512_store_si512(out, w.low);
            _mm512_store_si512(out + 64, w.high);
        }
    }

    // Sums of a whole chunk stay in registers: 12 of integers, 12 of floats.
    template <int kBlockTiles, int kBlockTokens>
    static void block(const Chunk& chunk, const Rows& rows, float* y, int64_t y_stride, bool accumulate) {
        if (chunk.n_units == 4 && chunk.n_last_units == 4) {  // the common size, unrolled
            block_of<kBlockTiles, kBlockTokens, 4>(chunk, rows, y, y_stride, accumulate);
        } else {
            block_of<kBlockTiles, kBlockTokens, 0>(chunk, rows, y, y_stride, accumulate);
        }
    }

    // kUnits: of every group, or 0 for any.
    template <int kBlockTiles, int kBlockTokens, int kUnits>
    static void block_of(const Chunk& chunk, Rows rows, float* y, int64_t y_stride, bool accumulate) {
        __m512 totals[kBlockTokens][kBlockTiles];
        for (int t = 0; t < kBlockTokens; ++t) {
            for (int i = 0; i < kBlockTiles; ++i) {
                totals[t][i] = accumulate ? _mm512_loadu_ps(y + t * y_stride + i * kTileRows) : _mm512_setzero_ps();
            }
        }
        const uint8_t* weights = chunk.weights;
        const float* scales = chunk.scales;
        for (int g = 0; g < chunk.n_groups; ++g) {
            group<kBlockTiles, kBlockTokens>(weights, kUnits > 0 ? kUnits : chunk.units_of(g), scales, rows, totals);
            weights += (kUnits > 0 ? kUnits : chunk.n_units) * kBlockTiles * kUnpackedBytes, scales += kBlockTiles * kTileRows;
            rows.codes += chunk.n_units * kUnitColumns, ++rows.scales, ++rows.sums;
        }
        for (int t = 0; t < kBlockTokens; ++t) {
            for (int i = 0; i < kBlockTiles; ++i) _mm512_storeu_ps(y + t * y_stride + i * kTileRows, totals[t][i]);
        }
    }

    template <int kBlockTiles, int kBlockTokens>
    [[gnu::always_inline]] static inline void group(const uint8_t* weights, int n_units, const float* scales, const Rows& rows,
                                                    __m512 (&totals)[kBlockTokens][kBlockTiles]) {
        const auto codes = tokens_of<kBlockTokens>(rows.codes, rows.stride);
        const auto a_scales = tokens_of<kBlockTokens>(rows.scales, rows.group_stride);
        const auto a_sums = tokens_of<kBlockTokens>(rows.sums, rows.group_stride);
        __m512i sums[kBlockTokens][kBlockTiles];
        for (int t = 0; t < kBlockTokens; ++t) {
            const __m512i all = _mm512_set1_epi32(*a_sums.at(t));
            sums[t][0] = _mm512_sub_epi32(_mm512_set1_epi32(kMagicBits), _mm512_slli_epi32(all, 7));
            for (int i = 1; i < kBlockTiles; ++i) sums[t][i] = sums[t][0];
        }
#pragma GCC unroll 4
        for (int u = 0; u < n_units; ++u, weights += kBlockTiles * kUnpackedBytes) {
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                __m512i w[kBlockTiles];
                for (int i = 0; i < kBlockTiles; ++i) w[i] = _mm512_load_si512(weights + i * kUnpackedBytes + 64 * half);
                for (int t = 0; t < kBlockTokens; ++t) {
                    const __m512i a = four_columns(codes.at(t) + 8 * u + 4 * half);
                    for (int i = 0; i < kBlockTiles; ++i) sums[t][i] = _mm512_dpbusd_epi32(sums[t][i], w[i], a);
                }
            }
        }
        __m512 w_scales[kBlockTiles];
        for (int i = 0; i < kBlockTiles; ++i) w_scales[i] = _mm512_load_ps(scales + i * kTileRows);
        for (int t = 0; t < kBlockTokens; ++t) {
            const __m512 a_scale = _mm512_set1_ps(*a_scales.at(t));
            for (int i = 0; i < kBlockTiles; ++i) {
                totals[t][i] = _mm512_fmadd_ps(float_of(sums[t][i]), _mm512_mul_ps(w_scales[i], a_scale), totals[t][i]);
            }
        }
    }
};

}  // namespace
}  // namespace edge
