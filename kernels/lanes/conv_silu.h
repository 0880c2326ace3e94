// conv_silu (ops.h) on 16 lanes. Include after a lanes_*.h.
#pragma once
#include "kernels/lanes/exp.h"
#include "kernels/ops.h"

namespace edge {
namespace {

// 16 rows (or 8) of one run, from row `row`; they come out at `out`.
template <bool is_half>
inline void conv_silu_rows(const ConvArgs& a, int64_t row, float* out) {
    const auto read = [](const float* p) { return is_half ? load8(p) : load(p); };
    const auto write = [](float* p, Lanes v) { is_half ? store8(p, v) : store(p, v); };
    const int64_t rows = int64_t{a.n_heads} * a.dims;
    const Lanes one = splat(1.0f), bias = read(a.taps + a.kernel * rows + row);
    Lanes taps[kMaxConvKernel], seen[kMaxConvKernel];
    for (int i = 0; i < a.kernel; ++i) taps[i] = read(a.taps + i * rows + row);
    for (int i = 0; i + 1 < a.kernel; ++i) seen[i] = read(a.past + i * rows + row);
    for (int t = 0; t < a.n_tokens; ++t) {
        seen[a.kernel - 1] = read(a.x + t * a.x_stride + row);
        Lanes total = bias;
        for (int i = 0; i < a.kernel; ++i) total = fma(taps[i], seen[i], total);
        write(out + t * a.out_stride, div(total, add(one, exponential(mul(total, splat(-1.0f))))));
        for (int i = 0; i + 1 < a.kernel; ++i) seen[i] = seen[i + 1];
    }
    for (int i = 0; i + 1 < a.kernel; ++i) write(a.past + i * rows + row, seen[i]);
}

inline void conv_silu_runs(const ConvArgs& a) {
    for (int run = a.begin; run < a.end; ++run) {
        const int64_t row = int64_t{run} * a.quantum;
        float* out = a.out + int64_t{run % a.n_heads} * a.dims + int64_t{run / a.n_heads} * a.quantum;
        int i = 0;
        for (; i + 16 <= a.quantum; i += 16) conv_silu_rows<false>(a, row + i, out + i);
        if (i < a.quantum) conv_silu_rows<true>(a, row + i, out + i);
    }
}

}  // namespace
}  // namespace edge
