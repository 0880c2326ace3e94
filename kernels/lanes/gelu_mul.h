// gelu_mul (ops.h) on 16 lanes. Include after a lanes_*.h.
#pragma once
#include "kernels/lanes/exp.h"
#include "kernels/ops.h"

namespace edge {
namespace {

inline Lanes gelu_times(Lanes gate, Lanes up) {
    const Lanes slope = fma(mul(gate, gate), splat(-0.071354816f), splat(-1.5957691f));
    return mul(div(gate, add(splat(1.0f), exponential(mul(slope, gate)))), up);
}

inline void gelu_mul_row(float* gate, const float* up, int64_t n) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) store(gate + i, gelu_times(load(gate + i), load(up + i)));
    if (i < n) store8(gate + i, gelu_times(load8(gate + i), load8(up + i)));
}

}  // namespace
}  // namespace edge
