#include <immintrin.h>

#include "kernels/ops.h"

namespace edge {

dot_peak_t dot_peak_avx512vnni;

int64_t dot_peak_avx512vnni(int64_t rounds, int32_t* sink) {
    __m512i sums[12];
    for (__m512i& sum : sums) sum = _mm512_set1_epi32(*sink);
    const __m512i w = _mm512_set1_epi32(*sink);
    __m512i a = _mm512_set1_epi32(*sink + 1);
    for (int64_t round = 0; round < rounds; ++round) {
        for (__m512i& sum : sums) {
            __asm__("" : "+v"(a));  // a might change: every product is computed
            sum = _mm512_dpbusd_epi32(sum, w, a);
        }
    }
    for (int i = 1; i < 12; ++i) sums[0] = _mm512_xor_si512(sums[0], sums[i]);
    *sink = _mm512_reduce_add_epi32(sums[0]);
    return rounds * 12 * 64;
}

}  // namespace edge
