#include <cmath>
#include <vector>

#include "kernels/exp.h"
#include "kernels/float16.h"
#include "kernels/ops.h"
#include "kernels/reference/lane_sum.h"

namespace edge {

quantize_t quantize_reference;
attention_q8_t attention_q8_reference;
attention_f16_t attention_f16_reference;

namespace {

size_t as_size(int64_t n) { return static_cast<size_t>(n); }

// One query vector and what is known of it after each block of keys.
class Row {
public:
    Row(const AttentionArgs& args, const float* q) : args_(args), codes_(as_size(args.qk)), acc_(as_size(args.vo)) {
        Activations a{codes_.data(), &factor_, &sum_, 0, 0, args.qk, args.qk};
        quantize_reference(q, 0, 1, a);
        factor_ *= args.softmax_scale;
    }

    // Keys [first, end) of the block at `begin`.
    void block(int begin, int first, int end) {
        float s[kKeyBlock], before = m_;
        for (int j = first; j < end; ++j) {
            s[j - begin] = static_cast<float>(dot(j)) * (f16_to_f32(args_.k_scales[j]) * factor_);
            if (args_.softcap > 0.0f) s[j - begin] = edge_softcap(s[j - begin], args_.softcap);
            m_ = std::fmax(m_, s[j - begin]);
        }
        const float factor = edge_exp(before - m_);
        for (float& lane : lanes_) lane *= factor;
        float most = 0.0f;
        for (int j = first; j < end; ++j) {
            const float e = edge_exp(s[j - begin] - m_);
            lanes_[j % 16] += e;
            s[j - begin] = e * f16_to_f32(args_.v_scales[j]);
            most = std::fmax(most, s[j - begin]);
        }
        const float inverse = most >= 1e-30f ? 255.0f / most : 0.0f;
        const auto* v = static_cast<const int8_t*>(args_.v);
        for (int c = 0; c < args_.vo; ++c) {
            int32_t products = 0;
            for (int j = first; j < end; ++j) {
                products += static_cast<int32_t>(std::nearbyint(s[j - begin] * inverse)) * v[value_code_index(j, c, args_.vo)];
            }
            float& acc = acc_[as_size(c)];
            acc = __builtin_fmaf(static_cast<float>(products), most / 255.0f, acc * factor);
        }
    }

    void finish(float* out) {
        for (int step = 8; step > 0; step /= 2) {
            for (int l = 0; l < step; ++l) lanes_[l] += lanes_[l + step];
        }
        const float inverse = 1.0f / lanes_[0];
        for (int c = 0; c < args_.vo; ++c) out[c] = acc_[as_size(c)] * inverse;
    }

private:
    int32_t dot(int key) const {
        int32_t sum = 0;
        for (int c = 0; c < args_.qk; ++c) {
            sum += codes_[as_size(c)] * static_cast<const int8_t*>(args_.k)[key_code_index(key, c, args_.qk)];
        }
        return sum;
    }

    const AttentionArgs& args_;
    std::vector<int8_t> codes_;
    std::vector<float> acc_;
    float lanes_[16] = {};
    float factor_ = 0.0f, m_ = -3.4e38f;
    int32_t sum_ = 0;
};

}  // namespace

void attention_q8_reference(const AttentionArgs& args) {
    for (int t = 0; t < args.n_tokens; ++t) {
        for (int h = 0; h < args.n_queries; ++h) {
            Row row(args, args.q + t * args.q_stride + int64_t{h} * args.qk);
            const int n_keys = args.n_keys + t;
            const int first = args.window && n_keys > args.window ? n_keys - args.window : 0;
            for (int begin = first / kKeyBlock * kKeyBlock; begin < n_keys; begin += kKeyBlock) {
                row.block(begin, begin < first ? first : begin, n_keys - begin < kKeyBlock ? n_keys : begin + kKeyBlock);
            }
            row.finish(args.out + t * args.out_stride + int64_t{h} * args.vo);
        }
    }
}

void attention_f16_reference(const AttentionArgs& args) {
    std::vector<float> key(as_size(args.qk));
    const std::vector<float> ones(as_size(args.n_keys + args.n_tokens), 1.0f);
    const auto* k = static_cast<const uint16_t*>(args.k);
    const auto* v = static_cast<const uint16_t*>(args.v);
    for (int64_t row = 0; row < int64_t{args.n_tokens} * args.n_queries; ++row) {
        const int64_t t = row / args.n_queries, h = row % args.n_queries, n_keys = args.n_keys + t;
        const int64_t first = args.window && n_keys > args.window ? n_keys - args.window : 0;
        float* weights = args.work;
        float largest = -HUGE_VALF;
        for (int64_t j = 0; j < first; ++j) weights[j] = 0.0f;
        for (int64_t j = first; j < n_keys; ++j) {
            for (int c = 0; c < args.qk; ++c) key[as_size(c)] = f16_to_f32(k[j * args.qk + c]);
            weights[j] = lane_dot(args.q + t * args.q_stride + h * args.qk, key.data(), args.qk) * args.softmax_scale;
            if (args.softcap > 0.0f) weights[j] = edge_softcap(weights[j], args.softcap);
            largest = std::fmax(largest, weights[j]);
        }
        for (int64_t j = first; j < n_keys; ++j) weights[j] = edge_exp(weights[j] - largest);
        const float inverse = 1.0f / lane_dot(weights, ones.data(), static_cast<int>(n_keys));
        for (int c = 0; c < args.vo; ++c) {
            float acc = 0.0f;
            for (int64_t j = first; j < n_keys; ++j) acc = __builtin_fmaf(weights[j], f16_to_f32(v[j * args.vo + c]), acc);
            args.out[t * args.out_stride + h * args.vo + c] = acc * inverse;
        }
    }
}

}  // namespace edge
