// ssm_scan (ops.h) on 16 lanes: four states of 16 channels stay in registers while all tokens pass. Include after a lanes_*.h.
#pragma once
#include "kernels/ops.h"

namespace edge {
namespace {

constexpr int kScanStates = 4;

// 16 channels (or 8), from channel p.
template <bool is_half>
inline void ssm_scan_channels(const ScanArgs& a, int p) {
    const auto read = [](const float* from) { return is_half ? load8(from) : load(from); };
    const auto write = [](float* to, Lanes v) { is_half ? store8(to, v) : store(to, v); };
    for (int n = 0; n < a.n_states; n += kScanStates) {
        Lanes state[kScanStates];
        for (int i = 0; i < kScanStates; ++i) state[i] = read(a.state + int64_t{n + i} * a.dims + p);
        const bool is_last = n + kScanStates >= a.n_states;
        for (int t = 0; t < a.n_tokens; ++t) {
            const Lanes x = read(a.x + t * a.x_stride + p), moved = mul(splat(a.step[t * a.step_stride]), x);
            const Lanes decay = splat(a.decay[t * a.step_stride]);
            const float* b = a.b + t * a.state_stride + n;
            const float* c = a.c + t * a.state_stride + n;
            float* y = a.y + t * a.y_stride + p;
            Lanes total = n == 0 ? zero() : read(y);
            for (int i = 0; i < kScanStates; ++i) {
                state[i] = fma(moved, splat(b[i]), mul(state[i], decay));
                total = fma(state[i], splat(c[i]), total);
            }
            write(y, is_last ? fma(splat(a.skip), x, total) : total);
        }
        for (int i = 0; i < kScanStates; ++i) write(a.state + int64_t{n + i} * a.dims + p, state[i]);
    }
}

inline void ssm_scan_head(const ScanArgs& a) {
    int p = 0;
    for (; p + 16 <= a.dims; p += 16) ssm_scan_channels<false>(a, p);
    if (p < a.dims) ssm_scan_channels<true>(a, p);
}

}  // namespace
}  // namespace edge
