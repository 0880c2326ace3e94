#include <cmath>
#include <vector>

#include "kernels/exp.h"
#include "kernels/float16.h"
#include "kernels/ops.h"
#include "kernels/reference/lane_sum.h"

namespace edge {

attention_q8_t attention_q8_reference;
attention_f16_t attention_f16_reference;

namespace {

struct Int8Cache {
    static float value(const void* data, int64_t index) { return static_cast<const int8_t*>(data)[index]; }
    static float scale(const uint16_t* scales, int key) { return f16_to_f32(scales[key]); }
};

struct Float16Cache {
    static float value(const void* data, int64_t index) { return f16_to_f32(static_cast<const uint16_t*>(data)[index]); }
    static float scale(const uint16_t*, int) { return 1.0f; }
};

template <class Cache>
void attention(const AttentionArgs& args) {
    std::vector<float> key(static_cast<size_t>(args.qk));
    std::vector<float> ones(static_cast<size_t>(args.n_keys), 1.0f);
    for (int h = 0; h < args.n_queries; ++h) {
        float* weights = args.scores + static_cast<int64_t>(h) * ((args.n_keys + 15) / 16 * 16);
        float largest = -HUGE_VALF;
        for (int j = 0; j < args.n_keys; ++j) {
            for (int c = 0; c < args.qk; ++c) key[static_cast<size_t>(c)] = Cache::value(args.k, int64_t{j} * args.qk + c);
            const float dot = lane_dot(args.q + static_cast<int64_t>(h) * args.qk, key.data(), args.qk);
            weights[j] = dot * (Cache::scale(args.k_scales, j) * args.softmax_scale);
            largest = std::fmax(largest, weights[j]);
        }
        for (int j = 0; j < args.n_keys; ++j) weights[j] = edge_exp(weights[j] - largest);
        const float inverse = 1.0f / lane_dot(weights, ones.data(), args.n_keys);
        for (int c = 0; c < args.vo; ++c) {
            float acc = 0.0f;
            for (int j = 0; j < args.n_keys; ++j) {
                const float weight = weights[j] * Cache::scale(args.v_scales, j);
                acc = __builtin_fmaf(weight, Cache::value(args.v, int64_t{j} * args.vo + c), acc);
            }
            args.out[static_cast<int64_t>(h) * args.vo + c] = acc * inverse;
        }
    }
}

}  // namespace

void attention_q8_reference(const AttentionArgs& args) { attention<Int8Cache>(args); }
void attention_f16_reference(const AttentionArgs& args) { attention<Float16Cache>(args); }

}  // namespace edge
