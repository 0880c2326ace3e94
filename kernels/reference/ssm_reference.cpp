#include "kernels/exp.h"
#include "kernels/float16.h"
#include "kernels/ops.h"
#include "kernels/softplus.h"

namespace edge {

dot_f16_t dot_f16_reference;
conv_silu_t conv_silu_reference;
ssm_step_t ssm_step_reference;
ssm_scan_t ssm_scan_reference;

void dot_f16_reference(const uint16_t* w, const float* x, int n_rows, int n, float* y) {
    for (int r = 0; r < n_rows; ++r) {
        float lanes[16] = {};
        for (int i = 0; i < n; ++i) lanes[i % 16] = __builtin_fmaf(f16_to_f32(w[int64_t{r} * n + i]), x[i], lanes[i % 16]);
        for (int step = 8; step > 0; step /= 2) {
            for (int l = 0; l < step; ++l) lanes[l] += lanes[l + step];
        }
        y[r] = lanes[0];
    }
}

void conv_silu_reference(const ConvArgs& a) {
    const int64_t rows = int64_t{a.n_heads} * a.dims;
    for (int64_t row = int64_t{a.begin} * a.quantum; row < int64_t{a.end} * a.quantum; ++row) {
        const int64_t run = row / a.quantum, head = run % a.n_heads;
        float* out = a.out + head * a.dims + run / a.n_heads * a.quantum + row % a.quantum;
        float seen[kMaxConvKernel];
        for (int i = 0; i + 1 < a.kernel; ++i) seen[i] = a.past[i * rows + row];
        for (int t = 0; t < a.n_tokens; ++t) {
            seen[a.kernel - 1] = a.x[t * a.x_stride + row];
            float sum = a.taps[a.kernel * rows + row];
            for (int i = 0; i < a.kernel; ++i) sum = __builtin_fmaf(a.taps[i * rows + row], seen[i], sum);
            out[t * a.out_stride] = sum / (1.0f + edge_exp(-sum));
            for (int i = 0; i + 1 < a.kernel; ++i) seen[i] = seen[i + 1];
        }
        for (int i = 0; i + 1 < a.kernel; ++i) a.past[i * rows + row] = seen[i];
    }
}

void ssm_step_reference(float* step, const float* bias, const float* a, float least, float most, int n_heads, float* decay) {
    for (int h = 0; h < n_heads; ++h) {
        float s = edge_softplus(step[h] + bias[h]);
        s = s < least ? least : s;
        step[h] = s > most ? most : s;
        decay[h] = edge_exp(step[h] * a[h]);
    }
}

void ssm_scan_reference(const ScanArgs& a) {
    for (int t = 0; t < a.n_tokens; ++t) {
        const float* x = a.x + t * a.x_stride;
        const float step = a.step[t * a.step_stride], decay = a.decay[t * a.step_stride];
        for (int p = 0; p < a.dims; ++p) {
            const float moved = step * x[p];
            float sum = 0.0f;
            for (int n = 0; n < a.n_states; ++n) {
                float& state = a.state[int64_t{n} * a.dims + p];
                state = __builtin_fmaf(moved, a.b[t * a.state_stride + n], state * decay);
                sum = __builtin_fmaf(state, a.c[t * a.state_stride + n], sum);
            }
            a.y[t * a.y_stride + p] = __builtin_fmaf(a.skip, x[p], sum);
        }
    }
}

}  // namespace edge
