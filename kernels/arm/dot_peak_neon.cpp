#include "kernels/arm/matmul_neon.h"

namespace edge {

dot_peak_t dot_peak_neon;

int64_t dot_peak_neon(int64_t rounds, int32_t* sink) {
    FourRows sums[8];
    const int8x16_t w = vdupq_n_s8(static_cast<int8_t>(*sink));
    const int8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, static_cast<int8_t>(*sink)};
    EightColumns a(bytes);
    for (int64_t round = 0; round < rounds; ++round) {
        for (FourRows& sum : sums) {
            __asm__("" : "+w"(a.low));  // a might change: every product is computed
            sum.add(w, w, a);
        }
    }
    *sink = 0;
    for (const FourRows& sum : sums) *sink ^= vaddvq_s32(sum.total());
    return rounds * 8 * 32;
}

}  // namespace edge
