// quantize (ops.h) on 16 lanes. Include after a lanes_*.h.
#pragma once
#include "kernels/ops.h"

namespace edge {
namespace {

inline float largest_magnitude(const float* x, int n) {
    Lanes most = zero();
    int i = 0;
    for (; i + 16 <= n; i += 16) most = max(most, abs(load(x + i)));
    if (i < n) most = max(most, abs(load8(x + i)));
    return largest(most);
}

inline void quantize_group(const float* x, int n, int8_t* codes, float* scale, int32_t* total) {
    const float most = largest_magnitude(x, n);
    const Lanes inverse = splat(most >= 1e-30f ? 127.0f / most : 0.0f);
    *scale = most / 127.0f;
    Ints sums = no_ints();
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        const Ints rounded = round_half_even(mul(load(x + i), inverse));
        store_i8(codes + i, rounded);
        sums = add(sums, rounded);
    }
    if (i < n) {
        const Ints rounded = round_half_even(mul(load8(x + i), inverse));
        store8_i8(codes + i, rounded);
        sums = add(sums, rounded);
    }
    *total = sum(sums);
}

inline void quantize_rows(const float* x, int64_t x_stride, int n_tokens, Activations& out) {
    for (int64_t t = 0; t < n_tokens; ++t) {
        for (int begin = 0, g = 0; begin < out.columns; begin += out.group, ++g) {
            const int n = out.columns - begin < out.group ? out.columns - begin : out.group;
            const int64_t at = t * out.group_stride + g;
            quantize_group(x + t * x_stride + begin, n, out.codes + t * out.stride + begin, out.scales + at, out.sums + at);
        }
    }
}

}  // namespace
}  // namespace edge
