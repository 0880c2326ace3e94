#include "kernels/ops.h"
#include "kernels/x86/dot_avxvnni.h"

namespace edge {

dot_peak_t dot_peak_avxvnni;

int64_t dot_peak_avxvnni(int64_t rounds, int32_t* sink) {
    __m256i sums[10];
    for (__m256i& sum : sums) sum = _mm256_set1_epi32(*sink);
    const auto w = IntDot::prepare(_mm256_set1_epi32(*sink));
    __m256i a = _mm256_set1_epi32(*sink + 1);
    for (int64_t round = 0; round < rounds; ++round) {
        for (__m256i& sum : sums) {
            __asm__("" : "+x"(a));  // a might change: every product is computed
            sum = IntDot::add(sum, w, a);
        }
    }
    for (int i = 1; i < 10; ++i) sums[0] = _mm256_xor_si256(sums[0], sums[i]);
    *sink = _mm256_extract_epi32(sums[0], 0) ^ _mm256_extract_epi32(sums[0], 7);
    return rounds * 10 * 32;
}

}  // namespace edge
