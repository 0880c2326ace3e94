#include "kernels/ops.h"

namespace edge {

rope_t rope_reference;
merge_heads_t merge_heads_reference;

namespace {

void turn(const float* x, const float* cosine, const float* sine, int pairs, float* out) {
    for (int p = 0; p < pairs; ++p) {
        const float a = x[p], b = x[p + pairs];
        out[p] = a * cosine[p] - b * sine[p];
        out[p + pairs] = b * cosine[p] + a * sine[p];
    }
}

}  // namespace

void rope_reference(const RopeArgs& args) {
    const int quantum = args.quantum, pairs = quantum / 2;
    for (int q = 0; q < args.dims / quantum; ++q) {
        for (int h = 0; h < args.n_heads; ++h) {
            const float* x = args.x + q * args.stride + int64_t{h} * quantum;
            float* out = args.out + static_cast<int64_t>(h) * args.dims + q * quantum;
            if (args.cosine == nullptr) {
                for (int i = 0; i < quantum; ++i) out[i] = x[i];
            } else {
                turn(x, args.cosine + q * pairs, args.sine + q * pairs, pairs, out);
            }
        }
    }
}

void merge_heads_reference(const float* x, int n_heads, int dims, int quantum, float* out) {
    for (int q = 0; q < dims / quantum; ++q) {
        for (int h = 0; h < n_heads; ++h) {
            const float* from = x + static_cast<int64_t>(h) * dims + q * quantum;
            float* to = out + (static_cast<int64_t>(q) * n_heads + h) * quantum;
            for (int i = 0; i < quantum; ++i) to[i] = from[i];
        }
    }
}

}  // namespace edge
