// The ops of a Mamba-2 mixer (formats/SPEC.md section 9, kernels/ops.h). A row is (z, x, b, c) in axis order, as the product in front
// gives it; `mixed` is (x, b, c) behind the convolution, head-major and group-major.
#define MAX_TAPS 8

// kernels/softplus.h in binary64, or where a device lacks it in binary32: then the last bits differ.
INLINE float edge_softplus(float x) {
    if (x > 20.0f) return x;
    const real e = edge_exp(x < 0.0f ? x : -x), s = e / ((real)2 + e), square = s * s;
    real series = (real)1 / 21;
    for (int k = 19; k > 0; k -= 2) series = series * square + (real)1 / k;
    return (x > 0.0f ? x : 0.0f) + (float)((real)2 * (s * series));
}

// dot_f16 (with dt's weights widened) and ssm_step. Groups: four heads, token. steps: (token, 2, head), the step and the decay.
KERNEL edge_steps(GLOBAL const float* y, int d_model, GLOBAL const float* vectors, int dt, int dt_bias, int a, int n_heads, float least,
                  float most, GLOBAL float* steps) {
    SHARED float lanes[GROUP];
    const int lane = LANE % 16, head = GROUP_X * 4 + LANE / 16, t = GROUP_Y;
    GLOBAL const float* x = y + (wide)t * d_model;
    GLOBAL const float* w = vectors + dt + (wide)(head < n_heads ? head : 0) * d_model;
    float acc = 0.0f;
    for (int i = lane; i < d_model; i += 16) acc = FMA(w[i], x[i], acc);
    lanes[LANE] = acc;
    BARRIER();
    if (lane < 8) lanes[LANE] += lanes[LANE + 8];
    BARRIER();
    if (lane < 4) lanes[LANE] += lanes[LANE + 4];
    BARRIER();
    if (lane < 2) lanes[LANE] += lanes[LANE + 2];
    BARRIER();
    if (lane == 0 && head < n_heads) {
        const float softplus = edge_softplus(lanes[LANE] + lanes[LANE + 1] + vectors[dt_bias + head]);
        const float above = softplus > least ? softplus : least, step = above < most ? above : most;
        steps[((wide)t * 2) * n_heads + head] = step;
        steps[((wide)t * 2 + 1) * n_heads + head] = edge_exp(step * vectors[a + head]);
    }
}

// conv_silu of n_rows rows in axis order, from `from` in each row to `to` in `mixed`. Groups: GROUP rows. A work item has one row and
// takes the tokens in order. past: (kernel - 1, n_rows); taps: (kernel + 1, n_rows).
KERNEL edge_conv(GLOBAL const float* rows, int row_stride, int from, GLOBAL const float* vectors, int bias, int taps, int kernel_size,
                 int n_rows, int n_heads, int dims, int quantum, GLOBAL float* state, int past, int n_tokens, GLOBAL float* mixed,
                 int mixed_stride, int to) {
    const int r = GROUP_X * GROUP + LANE;
    if (r >= n_rows) return;
    float window[MAX_TAPS];
    GLOBAL float* own = state + past + r;
    for (int i = 0; i < kernel_size - 1; ++i) window[i] = own[(wide)i * n_rows];
    GLOBAL const float* weight = vectors + taps + r;
    GLOBAL float* out = mixed + to + r / quantum % n_heads * dims + r / quantum / n_heads * quantum + r % quantum;
    for (int t = 0; t < n_tokens; ++t) {
        const float value = rows[(wide)t * row_stride + from + r];
        window[kernel_size - 1] = bias >= 0 ? value + vectors[bias + r] : value;
        float acc = weight[(wide)kernel_size * n_rows];
        for (int i = 0; i < kernel_size; ++i) acc = FMA(weight[(wide)i * n_rows], window[i], acc);
        out[(wide)t * mixed_stride] = acc / (1.0f + edge_exp(-acc));
        for (int i = 1; i < kernel_size; ++i) window[i - 1] = window[i];
    }
    for (int i = 0; i < kernel_size - 1; ++i) own[(wide)i * n_rows] = window[i];
}

// ssm_scan. Groups: head. A work item has every GROUPth channel and takes the tokens in order. out: (token, head, dims).
KERNEL edge_scan(GLOBAL const float* mixed, int mixed_stride, GLOBAL const float* steps, GLOBAL const float* vectors, int skip, int n_heads,
                 int n_groups, int n_states, int dims, GLOBAL float* state, int first_state, int n_tokens, GLOBAL float* out) {
    const int head = GROUP_X, group = head / (n_heads / n_groups);
    GLOBAL float* own = state + first_state + (wide)head * n_states * dims;
    for (int p = LANE; p < dims; p += GROUP) {
        for (int t = 0; t < n_tokens; ++t) {
            GLOBAL const float* row = mixed + (wide)t * mixed_stride;
            GLOBAL const float* b = row + n_heads * dims + group * n_states;
            GLOBAL const float* c = b + n_groups * n_states;
            const float x = row[head * dims + p], decay = steps[((wide)t * 2 + 1) * n_heads + head];
            const float m = steps[(wide)t * 2 * n_heads + head] * x;
            float acc = 0.0f;
            for (int n = 0; n < n_states; ++n) {
                const float s = FMA(m, b[n], own[(wide)n * dims + p] * decay);
                own[(wide)n * dims + p] = s;
                acc = FMA(s, c[n], acc);
            }
            out[((wide)t * n_heads + head) * dims + p] = FMA(vectors[skip + head], x, acc);
        }
    }
}

// silu_mul of z and y, then the gated norm, in place in y (token, head, dims). Groups: group of the norm, token.
KERNEL edge_gate(GLOBAL const float* rows, int row_stride, GLOBAL const float* vectors, int z_bias, int gain, float eps, int n_heads,
                 int dims, int quantum, int width, GLOBAL float* y) {
    SHARED float lanes[16];
    GLOBAL const float* z = rows + (wide)GROUP_Y * row_stride;
    const int first = GROUP_X * width;
    GLOBAL float* own = y + (wide)GROUP_Y * n_heads * dims + first;
    for (int i = LANE; i < width; i += GROUP) {
        const int head = (first + i) / dims, e = (first + i) % dims, at = (e / quantum * n_heads + head) * quantum + e % quantum;
        own[i] = activate(z_bias >= 0 ? z[at] + vectors[z_bias + at] : z[at], own[i], SILU);
    }
    const float inverse = inverse_rms(own, width, eps, lanes);
    for (int i = LANE; i < width; i += GROUP) own[i] = own[i] * inverse * vectors[gain + first + i];
}
