#include <cmath>

#include "kernels/exp.h"
#include "kernels/float16.h"
#include "kernels/ops.h"

namespace edge {

store_q8_t store_q8_reference;
store_f16_t store_f16_reference;

void store_q8_reference(const float* x, int n, int8_t* codes, uint16_t* scale) {
    float largest = 0.0f;
    for (int i = 0; i < n; ++i) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
    const float ideal = largest / 127.0f;
    *scale = f32_to_f16(ideal < 65504.0f ? ideal : 65504.0f);
    const float step = f16_to_f32(*scale);
    if (step == 0.0f) {
        for (int i = 0; i < n; ++i) codes[i] = 0;
        return;
    }
    for (int i = 0; i < n; ++i) {
        const float ratio = x[i] / step;
        const float below = ratio < 127.0f ? ratio : 127.0f;
        const float clamped = below > -127.0f ? below : -127.0f;
        codes[i] = static_cast<int8_t>(static_cast<int32_t>((clamped + kRoundMagic) - kRoundMagic));  // half to even
    }
}

void store_f16_reference(const float* x, int n, uint16_t* out) {
    for (int i = 0; i < n; ++i) out[i] = f32_to_f16(x[i]);
}

}  // namespace edge
