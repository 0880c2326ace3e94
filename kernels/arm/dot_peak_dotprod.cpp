#include <arm_neon.h>

#include "kernels/ops.h"

namespace edge {

dot_peak_t dot_peak_dotprod;

int64_t dot_peak_dotprod(int64_t rounds, int32_t* sink) {
    int32x4_t sums[16];
    for (int32x4_t& sum : sums) sum = vdupq_n_s32(*sink);
    const int8x16_t w = vdupq_n_s8(static_cast<int8_t>(*sink));
    int8x16_t a = vdupq_n_s8(static_cast<int8_t>(*sink + 1));
    for (int64_t round = 0; round < rounds; ++round) {
        for (int32x4_t& sum : sums) {
            __asm__("" : "+w"(a));  // a might change: every product is computed
            sum = vdotq_s32(sum, w, a);
        }
    }
    for (int i = 1; i < 16; ++i) sums[0] = veorq_s32(sums[0], sums[i]);
    *sink = vaddvq_s32(sums[0]);
    return rounds * 16 * 16;
}

}  // namespace edge
