// store_q8 (ops.h) on 16 lanes. Include after a lanes_*.h.
#pragma once
#include "kernels/float16.h"
#include "kernels/lanes/quantize.h"
#include "kernels/ops.h"

namespace edge {
namespace {

inline void store_vector(const float* x, int n, int8_t* codes, uint16_t* scale) {
    const float ideal = largest_magnitude(x, n) / 127.0f;
    *scale = f32_to_f16(ideal < 65504.0f ? ideal : 65504.0f);
    const float step = f16_to_f32(*scale);
    if (step == 0.0f) {
        for (int i = 0; i < n; ++i) codes[i] = 0;
        return;
    }
    const auto rounded = [step](Lanes v) { return round_half_even(max(min(div(v, splat(step)), splat(127.0f)), splat(-127.0f))); };
    int i = 0;
    for (; i + 16 <= n; i += 16) store_i8(codes + i, rounded(load(x + i)));
    if (i < n) store8_i8(codes + i, rounded(load8(x + i)));
}

}  // namespace
}  // namespace edge
