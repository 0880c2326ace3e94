#include "kernels/x86/lanes_avx512vnni.h"

#include "kernels/lanes/attention_q8.h"

namespace edge {
namespace {

// vpdpbusd wants one unsigned factor: keys enter as code + 128, and the sums start at -128 * sum(query).
// Stores are unrolled by hand, or the compiler keeps the sums in memory to copy them from there.
struct Vnni512Dots {
    template <int kRows, int kTiles>
    [[gnu::noinline]] static void key_tiles(const Queries& queries, int first_row, const int8_t* k, int qk, int32_t* out) {
        const int8_t* q = queries.codes + first_row * queries.stride;
        const __m512i flip = _mm512_set1_epi8(-128);
        __m512i sums[kRows][kTiles];
        for (int r = 0; r < kRows; ++r) {
            for (int i = 0; i < kTiles; ++i) sums[r][i] = _mm512_set1_epi32(-128 * queries.sums[first_row + r]);
        }
        for (int c = 0; c < qk; c += 4) {
            __m512i keys[kTiles];
            for (int i = 0; i < kTiles; ++i) keys[i] = _mm512_xor_si512(_mm512_loadu_si512(k + 16 * (i * qk + c)), flip);
            for (int r = 0; r < kRows; ++r) {
                const __m512i a = four(q + r * queries.stride + c);
                for (int i = 0; i < kTiles; ++i) sums[r][i] = _mm512_dpbusd_epi32(sums[r][i], keys[i], a);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
            for (int i = 0; i < kTiles; ++i) _mm512_store_si512(out + r * kKeyBlock + 16 * i, sums[r][i]);
        }
    }

    template <int kRows>
    static void keys(const Queries& queries, int first_row, const int8_t* k, int qk, int n_tiles, int32_t* out) {
        if (n_tiles == 4) return key_tiles<kRows, 4>(queries, first_row, k, qk, out);
        for (int i = 0; i < n_tiles; ++i) key_tiles<kRows, 1>(queries, first_row, k + 16 * i * qk, qk, out + 16 * i);
    }

    template <int kRows, int kChunks>
    [[gnu::noinline]] static void value_chunks(const uint8_t* p, const int8_t* v, int64_t padded_vo, int n_keys, int32_t* out) {
        __m512i sums[kRows][kChunks];
        for (int r = 0; r < kRows; ++r) {
            for (int i = 0; i < kChunks; ++i) sums[r][i] = _mm512_setzero_si512();
        }
        for (int j = 0; j < n_keys; j += 4, v += 4 * padded_vo) {
            __m512i values[kChunks];
            for (int i = 0; i < kChunks; ++i) values[i] = _mm512_loadu_si512(v + 64 * i);
            for (int r = 0; r < kRows; ++r) {
                const __m512i weight = four(p + r * kKeyBlock + j);
                for (int i = 0; i < kChunks; ++i) sums[r][i] = _mm512_dpbusd_epi32(sums[r][i], weight, values[i]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
            for (int i = 0; i < kChunks; ++i) _mm512_store_si512(out + 64 * r + 16 * i, sums[r][i]);
        }
    }

    template <int kRows>
    static void values(const uint8_t* p, const int8_t* v, int64_t padded_vo, int n_columns, int n_keys, int32_t* out) {
        if (n_columns == 64) return value_chunks<kRows, 4>(p, v, padded_vo, n_keys, out);
        for (int c = 0; c < n_columns; c += 16) value_chunks<kRows, 1>(p, v + 4 * c, padded_vo, n_keys, out + c);
    }

    static __m512i four(const void* bytes) {
        int32_t word;
        __builtin_memcpy(&word, bytes, 4);
        return _mm512_set1_epi32(word);
    }
};

}  // namespace

attention_q8_t attention_q8_avx512vnni;

void attention_q8_avx512vnni(const AttentionArgs& args) { attend_q8<Vnni512Dots>(args); }

}  // namespace edge
