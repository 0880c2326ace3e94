// Kernels that work on single rows: one work group per token. `vectors` holds all float vectors of the level, at offsets; an offset
// of -1 means that there is none.

// One group of activations to int8, four codes at a time. `value` is an expression of the column c.
#define QUANTIZE(begin, end, value, codes, scale)                                      \
    {                                                                                  \
        float largest = 0.0f;                                                          \
        for (int c = begin; c < end; ++c) largest = fmax(largest, fabs(value));        \
        const float inverse = inverse_of(largest, 127.0f);                             \
        *(scale) = largest / 127.0f;                                                   \
        for (int word = begin; word < end; word += 4) {                                \
            uint packed = 0;                                                           \
            for (int c = word; c < word + 4; ++c) packed |= activation_code(value, inverse) << 8 * (c - word); \
            (codes)[word / 4] = packed;                                                \
        }                                                                              \
    }

// x += y + bias of the block before, normed where it has a post norm.
INLINE void add_output(GLOBAL float* x, GLOBAL float* y, int d_model, GLOBAL const float* vectors, int bias, int post_norm, float eps,
                       LOCAL float* lanes) {
    float inverse = 0.0f;
    if (bias >= 0) {
        for (int c = LANE; c < d_model; c += GROUP) y[c] += vectors[bias + c];
    }
    if (post_norm >= 0) inverse = inverse_rms(y, d_model, eps, lanes);
    for (int c = LANE; c < d_model; c += GROUP) x[c] += post_norm >= 0 ? y[c] * inverse * vectors[post_norm + c] : y[c];
    BARRIER();
}

// rms_norm, then quantize. Groups: token. has_output: y holds what the block before leaves, and x lacks it. keeps: y gets the result
// as it was before it was quantized.
KERNEL edge_normalize(GLOBAL float* x, GLOBAL float* y, GLOBAL const float* vectors, int has_output, int bias, int post_norm, int gain,
                      int keeps, float eps, int d_model, int group, int first, GLOBAL uint* codes, GLOBAL float* scales, int stride,
                      int group_stride) {
    SHARED float lanes[16];
    GLOBAL float* row = x + (wide)(first + GROUP_X) * d_model;
    if (has_output) add_output(row, y + (wide)(first + GROUP_X) * d_model, d_model, vectors, bias, post_norm, eps, lanes);
    const float inverse_norm = inverse_rms(row, d_model, eps, lanes);
    GLOBAL const float* gains = vectors + gain;
    for (int c = keeps ? LANE : d_model; c < d_model; c += GROUP) {
        y[(wide)(first + GROUP_X) * d_model + c] = row[c] * inverse_norm * gains[c];
    }
    for (int g = LANE; g * group < d_model; g += GROUP) {
        const int begin = g * group, end = begin + group < d_model ? begin + group : d_model;
        QUANTIZE(begin, end, row[c] * inverse_norm * gains[c], codes + (wide)GROUP_X * stride / 4,
                 scales + (wide)GROUP_X * group_stride + g)
    }
}

// A block that is its bias alone. Groups: token.
KERNEL edge_add_bias(GLOBAL float* x, GLOBAL float* y, GLOBAL const float* vectors, int has_output, int bias, int post_norm,
                     int own_bias, float eps, int d_model) {
    SHARED float lanes[16];
    GLOBAL float* row = x + (wide)GROUP_X * d_model;
    if (has_output) add_output(row, y + (wide)GROUP_X * d_model, d_model, vectors, bias, post_norm, eps, lanes);
    for (int c = LANE; c < d_model; c += GROUP) row[c] += vectors[own_bias + c];
}

#define SILU 0
#define GELU 1
#define SQUARE 2

INLINE float activate(float gate, float up, int kind) {
    if (kind == SQUARE) return up > 0.0f ? up * up : 0.0f;
    if (kind == SILU) return gate / (1.0f + edge_exp(-gate)) * up;
    return gate / (1.0f + edge_exp(FMA(gate * gate, -0.071354816f, -1.5957691f) * gate)) * up;
}

// silu_mul, gelu_mul or the square above zero, then quantize. Groups: GROUP groups of columns, token. A row is (gate, up), or up alone;
// the result takes the place of its first `width` numbers.
KERNEL edge_activate(GLOBAL float* rows, int row_stride, GLOBAL const float* vectors, int gate_bias, int up_bias, int kind, int width,
                     int group, GLOBAL uint* codes, GLOBAL float* scales, int stride, int group_stride) {
    const int g = GROUP_X * GROUP + LANE, begin = g * group;
    if (begin >= width) return;
    const int end = begin + group < width ? begin + group : width;
    GLOBAL float* gate = rows + (wide)GROUP_Y * row_stride;
    GLOBAL const float* up = kind == SQUARE ? gate : gate + width;
    for (int c = begin; c < end; ++c) {
        const float g_value = gate_bias >= 0 ? gate[c] + vectors[gate_bias + c] : gate[c];
        const float u_value = up_bias >= 0 ? up[c] + vectors[up_bias + c] : up[c];
        gate[c] = activate(g_value, u_value, kind);
    }
    QUANTIZE(begin, end, gate[c], codes + (wide)GROUP_Y * stride / 4, scales + (wide)GROUP_Y * group_stride + g)
}

// Where element s of an axis in quantum-major order lies among heads that stand one behind the other.
INLINE int head_major(int s, int n_heads, int dims, int quantum) {
    const int run = s / quantum;
    return run % n_heads * dims + run / n_heads * quantum + s % quantum;
}

// merge_heads, then quantize. Groups: GROUP groups of columns, token.
KERNEL edge_merge(GLOBAL const float* heads, int n_heads, int dims, int quantum, int group, GLOBAL uint* codes, GLOBAL float* scales,
                  int stride, int group_stride) {
    const int g = GROUP_X * GROUP + LANE, begin = g * group, width = n_heads * dims;
    if (begin >= width) return;
    const int end = begin + group < width ? begin + group : width;
    GLOBAL const float* row = heads + (wide)GROUP_Y * width;
    QUANTIZE(begin, end, row[head_major(c, n_heads, dims, quantum)], codes + (wide)GROUP_Y * stride / 4,
             scales + (wide)GROUP_Y * group_stride + g)
}

// softcap. Groups: GROUP numbers.
KERNEL edge_softcap_rows(GLOBAL float* x, float cap, int n) {
    const int i = GROUP_X * GROUP + LANE;
    if (i < n) x[i] = edge_softcap(x[i], cap);
}

// The likeliest tokens: the largest logits, of equals those with the lowest ids. A logit that is no number counts as the least there is.
#define CHOICES 64
#define LEAST FLOAT(0xff800000u)  // -infinity
#define NO_TOKEN 0x7fffffff       // comes behind all tokens

INLINE int is_likelier(float value, int id, float other, int other_id) { return value > other || (value == other && id < other_id); }

// The likeliest of what the work items have, to all of them.
INLINE void likeliest_of(LOCAL float* values, LOCAL int* ids, float* value, int* id) {
    values[LANE] = *value;
    ids[LANE] = *id;
    for (int step = GROUP / 2; step > 0; step /= 2) {
        BARRIER();
        if (LANE < step && is_likelier(values[LANE + step], ids[LANE + step], values[LANE], ids[LANE])) {
            values[LANE] = values[LANE + step];
            ids[LANE] = ids[LANE + step];
        }
    }
    BARRIER();
    *value = values[0];
    *id = ids[0];
    BARRIER();
}

// Groups: CHOICES, each with its share of the logits, of which it leaves the n_best likeliest, likeliest first. `best` holds pairs of
// a logit's bits and a token.
KERNEL edge_choose(GLOBAL const float* logits, int n, int n_best, GLOBAL uint* best) {
    SHARED float values[GROUP];
    SHARED int ids[GROUP];
    GLOBAL uint* own = best + GROUP_X * n_best * 2;
    float last = -LEAST;  // what the round before took: this one takes the next behind it
    int last_id = -1;
    for (int rank = 0; rank < n_best; ++rank) {
        float value = LEAST;
        int id = NO_TOKEN;
        for (int i = GROUP_X * GROUP + LANE; i < n; i += CHOICES * GROUP) {
            const float found = logits[i] == logits[i] ? logits[i] : LEAST;
            if (is_likelier(last, last_id, found, i) && is_likelier(found, i, value, id)) {
                value = found;
                id = i;
            }
        }
        likeliest_of(values, ids, &value, &id);
        if (LANE == 0) {
            own[2 * rank] = BITS(value);
            own[2 * rank + 1] = (uint)id;
        }
        last = value;
        last_id = id;
    }
}

// One group: the n_best likeliest of all, behind what the groups before left. A work item has the list of one of them.
KERNEL edge_choose_last(GLOBAL uint* best, int n_best) {
    SHARED float values[GROUP];
    SHARED int ids[GROUP];
    GLOBAL const uint* own = best + LANE * n_best * 2;
    GLOBAL uint* out = best + CHOICES * n_best * 2;
    int next = 0;  // of its list
    for (int rank = 0; rank < n_best; ++rank) {
        float value = next < n_best ? FLOAT(own[2 * next]) : LEAST;
        int id = next < n_best ? (int)own[2 * next + 1] : NO_TOKEN;
        const int own_id = id;
        likeliest_of(values, ids, &value, &id);
        if (own_id == id) ++next;
        if (LANE == 0) {
            out[2 * rank] = BITS(value);
            out[2 * rank + 1] = (uint)id;
        }
    }
}
