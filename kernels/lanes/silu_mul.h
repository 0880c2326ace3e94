// silu_mul (ops.h) on 16 lanes. Include after a lanes_*.h.
#pragma once
#include "kernels/lanes/exp.h"
#include "kernels/ops.h"

namespace edge {
namespace {

inline Lanes silu_times(Lanes gate, Lanes up) {
    const Lanes negated = mul(gate, splat(-1.0f));
    return mul(div(gate, add(splat(1.0f), exponential(negated))), up);
}

inline void silu_mul_row(float* gate, const float* up, int64_t n) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) store(gate + i, silu_times(load(gate + i), load(up + i)));
    if (i < n) store8(gate + i, silu_times(load8(gate + i), load8(up + i)));
}

}  // namespace
}  // namespace edge
