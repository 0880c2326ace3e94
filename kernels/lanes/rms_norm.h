// rms_norm (ops.h) on 16 lanes. Include after a lanes_*.h.
#pragma once
#include "kernels/ops.h"

namespace edge {
namespace {

inline void rms_norm_row(const float* x, const float* gain, float eps, int n, float* y) {
    Lanes squares = zero();
    int i = 0;
    for (; i + 16 <= n; i += 16) squares = fma(load(x + i), load(x + i), squares);
    if (i < n) squares = fma(load8(x + i), load8(x + i), squares);
    const Lanes inverse = splat(1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(n) + eps));
    for (i = 0; i + 16 <= n; i += 16) store(y + i, mul(mul(load(x + i), inverse), load(gain + i)));
    if (i < n) store8(y + i, mul(mul(load8(x + i), inverse), load8(gain + i)));
}

}  // namespace
}  // namespace edge
