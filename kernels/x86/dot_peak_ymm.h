// dot_peak for 256-bit registers. Include after the definition of `NarrowDot` (matmul_ymm.h).
#pragma once
#include <immintrin.h>

#include "kernels/ops.h"

namespace edge {
namespace {

inline int64_t dot_peak_ymm(int64_t rounds, int32_t* sink) {
    __m256i sums[10];
    for (__m256i& sum : sums) sum = _mm256_set1_epi32(*sink);
    const auto w = NarrowDot::prepare(_mm256_set1_epi32(*sink)), w2 = NarrowDot::prepare(_mm256_set1_epi32(*sink + 2));
    __m256i a = _mm256_set1_epi32(*sink + 1);
    for (int64_t round = 0; round < rounds; ++round) {
        for (__m256i& sum : sums) {
            __asm__("" : "+x"(a));  // a might change: every product is computed
            sum = NarrowDot::add(sum, w, a, w2, a);
        }
    }
    for (int i = 1; i < 10; ++i) sums[0] = _mm256_xor_si256(sums[0], sums[i]);
    *sink = _mm256_extract_epi32(sums[0], 0) ^ _mm256_extract_epi32(sums[0], 7);
    return rounds * 10 * 64;
}

}  // namespace
}  // namespace edge
