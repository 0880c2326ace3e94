// The integer products of attention_q8 for 256-bit registers. Include after the definition of `ByteDot` (see matmul_ymm.h).
//   Unsigned, prepare_unsigned(p), Signed, prepare_signed(v), add(sums, p, v): four unsigned by four signed bytes in each lane
#pragma once
#include "kernels/x86/lanes_avx2.h"

#include "kernels/lanes/attention_q8.h"

namespace edge {
namespace {

struct YmmDots {
    template <int kRows>
    [[gnu::noinline]] static void key_tile(const Queries& queries, int first_row, const int8_t* k, int qk, int32_t* out) {
        const int8_t* q = queries.codes + first_row * queries.stride;
        const __m256i flip = _mm256_set1_epi8(static_cast<char>(ByteDot::kFlip));
        __m256i sums[kRows][2];
        for (int r = 0; r < kRows; ++r) {
            sums[r][0] = sums[r][1] = _mm256_set1_epi32(-ByteDot::kFlip * queries.sums[first_row + r]);
        }
        for (int c = 0; c < qk; c += 4) {
            const auto upper = ByteDot::prepare(_mm256_xor_si256(load_bytes(k + 16 * c), flip));
            const auto lower = ByteDot::prepare(_mm256_xor_si256(load_bytes(k + 16 * c + 32), flip));
            for (int r = 0; r < kRows; ++r) {
                const __m256i a = four(q + r * queries.stride + c);
                sums[r][0] = ByteDot::add(sums[r][0], upper, a);
                sums[r][1] = ByteDot::add(sums[r][1], lower, a);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) store_pair(sums[r], out + r * kKeyBlock);
    }

    template <int kRows>
    static void keys(const Queries& queries, int first_row, const int8_t* k, int qk, int n_tiles, int32_t* out) {
        for (int i = 0; i < n_tiles; ++i) key_tile<kRows>(queries, first_row, k + 16 * i * qk, qk, out + 16 * i);
    }

    template <int kRows>
    [[gnu::noinline]] static void value_chunk(const uint8_t* p, const int8_t* v, int64_t padded_vo, int n_keys, int32_t* out) {
        __m256i sums[kRows][2];
        for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
        for (int j = 0; j < n_keys; j += 4, v += 4 * padded_vo) {
            const auto left = ByteDot::prepare_signed(load_bytes(v)), right = ByteDot::prepare_signed(load_bytes(v + 32));
            for (int r = 0; r < kRows; ++r) {
                const auto weight = ByteDot::prepare_unsigned(four(p + r * kKeyBlock + j));
                sums[r][0] = ByteDot::add(sums[r][0], weight, left);
                sums[r][1] = ByteDot::add(sums[r][1], weight, right);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) store_pair(sums[r], out + 64 * r);
    }

    template <int kRows>
    static void values(const uint8_t* p, const int8_t* v, int64_t padded_vo, int n_columns, int n_keys, int32_t* out) {
        for (int c = 0; c < n_columns; c += 16) value_chunk<kRows>(p, v + 4 * c, padded_vo, n_keys, out + c);
    }

    static void store_pair(const __m256i* pair, int32_t* out) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), pair[0]);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8), pair[1]);
    }
    static __m256i load_bytes(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
    static __m256i four(const void* bytes) {
        int32_t word;
        __builtin_memcpy(&word, bytes, 4);
        return _mm256_set1_epi32(word);
    }
};

}  // namespace
}  // namespace edge
