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

struct Vnni512 {
    static constexpr int kTiles = 2;

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
        __m512i low = _mm512_set1_epi32(-128 * *row.sums), high = _mm512_setzero_si512();
        for (int u = 0; u < n_units; ++u, unit += Codes::kUnitBytes) {
            _mm_prefetch(reinterpret_cast<const char*>(unit + kPrefetchBytes), _MM_HINT_T0);
            const Columns w = codes.read(unit);
            low = _mm512_dpbusd_epi32(low, w.low, four_columns(row.codes + 8 * u));
            high = _mm512_dpbusd_epi32(high, w.high, four_columns(row.codes + 8 * u + 4));
        }
        const __m512 w_scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
        const __m512 scale = _mm512_mul_ps(w_scale, _mm512_set1_ps(*row.scales));
        sum.v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(low, high)), scale, sum.v);
    }

    template <class Codes>
    static void unpack(const Codes& codes, const uint8_t* unit, int n_units, uint8_t* out, int unit_stride) {
        for (int u = 0; u < n_units; ++u, unit += Codes::kUnitBytes, out += unit_stride) {
            const Columns w = codes.read(unit);
            _mm512_store_si512(out, w.low);
            _mm512_store_si512(out + 64, w.high);
        }
    }

    template <int kBlockTiles, int kTokens>
    static void block(const uint8_t* weights, int n_units, const float* scales, const Rows& rows, float* acc) {
        __m512i sums[kTokens][kBlockTiles];
        for (int t = 0; t < kTokens; ++t) {
            for (int i = 0; i < kBlockTiles; ++i) sums[t][i] = _mm512_set1_epi32(-128 * rows.sums[t * rows.group_stride]);
        }
        for (int u = 0; u < n_units; ++u, weights += kBlockTiles * kUnpackedBytes) {
            for (int half = 0; half < 2; ++half) {
                __m512i w[kBlockTiles];
                for (int i = 0; i < kBlockTiles; ++i) w[i] = _mm512_load_si512(weights + i * kUnpackedBytes + 64 * half);
                for (int t = 0; t < kTokens; ++t) {
                    const __m512i a = four_columns(rows.codes + t * rows.stride + 8 * u + 4 * half);
                    for (int i = 0; i < kBlockTiles; ++i) sums[t][i] = _mm512_dpbusd_epi32(sums[t][i], w[i], a);
                }
            }
        }
        for (int t = 0; t < kTokens; ++t) {
            const __m512 a_scale = _mm512_set1_ps(rows.scales[t * rows.group_stride]);
            for (int i = 0; i < kBlockTiles; ++i) {
                float* out = acc + (t * kBlockTiles + i) * kTileRows;
                const __m512 scale = _mm512_mul_ps(_mm512_load_ps(scales + i * kTileRows), a_scale);
                _mm512_store_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[t][i]), scale, _mm512_load_ps(out)));
            }
        }
    }
};

}  // namespace
}  // namespace edge
