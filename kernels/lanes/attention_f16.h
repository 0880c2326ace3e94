// attention_f16 (ops.h) on 16 lanes: keys and values are converted once for up to four queries. Include after a lanes_*.h.
#pragma once
#include "kernels/lanes/exp.h"
#include "kernels/ops.h"

namespace edge {
namespace {

// Scores of kQueries queries with every key; rows of `scores` are `padded` apart.
template <int kQueries>
inline void score_keys(const AttentionArgs& args, const float* q, float* scores, int64_t padded) {
    const auto* key = static_cast<const uint16_t*>(args.k);
    for (int j = 0; j < args.n_keys; ++j, key += args.qk) {
        Lanes acc[kQueries];
        for (int h = 0; h < kQueries; ++h) acc[h] = zero();
        int c = 0;
        for (; c + 16 <= args.qk; c += 16) {
            const Lanes k = load_f16(key + c);
            for (int h = 0; h < kQueries; ++h) acc[h] = fma(load(q + h * args.qk + c), k, acc[h]);
        }
        if (c < args.qk) {
            const Lanes k = load8_f16(key + c);
            for (int h = 0; h < kQueries; ++h) acc[h] = fma(load8(q + h * args.qk + c), k, acc[h]);
        }
        for (int h = 0; h < kQueries; ++h) scores[h * padded + j] = sum(acc[h]) * args.softmax_scale;
    }
}

// Turns one row of scores into weights e[j]; returns 1 / sum e. The row is padded to whole lanes. The token does not see the
// first `hidden` keys.
inline float weigh(const AttentionArgs& args, float* scores, int64_t padded, int hidden) {
    if (args.softcap > 0.0f) {
        for (int64_t j = 0; j < padded; j += 16) store(scores + j, softcapped(load(scores + j), args.softcap));
    }
    for (int j = 0; j < hidden; ++j) scores[j] = -3.4e38f;
    for (int64_t j = args.n_keys; j < padded; ++j) scores[j] = -3.4e38f;  // its exponential is 0
    Lanes most = load(scores);
    for (int64_t j = 16; j < padded; j += 16) most = max(most, load(scores + j));
    const Lanes shift = splat(largest(most));
    Lanes total = zero();
    for (int64_t j = 0; j < padded; j += 16) {
        const Lanes e = exponential(sub(load(scores + j), shift));
        total = add(total, e);
        store(scores + j, e);
    }
    return 1.0f / sum(total);
}

// kChunks * 16 columns of the weighted sum of values, for kQueries queries.
template <int kQueries, int kChunks>
inline void sum_values(const AttentionArgs& args, const float* weights, int64_t padded, const float* inverse, int column,
                       float* out) {
    const auto* value = static_cast<const uint16_t*>(args.v) + column;
    Lanes acc[kQueries][kChunks];
    for (int h = 0; h < kQueries; ++h) {
        for (int i = 0; i < kChunks; ++i) acc[h][i] = zero();
    }
    for (int j = 0; j < args.n_keys; ++j, value += args.vo) {
        Lanes v[kChunks];
        for (int i = 0; i < kChunks; ++i) v[i] = load_f16(value + 16 * i);
        for (int h = 0; h < kQueries; ++h) {
            const Lanes weight = splat(weights[h * padded + j]);
            for (int i = 0; i < kChunks; ++i) acc[h][i] = fma(weight, v[i], acc[h][i]);
        }
    }
    for (int h = 0; h < kQueries; ++h) {
        for (int i = 0; i < kChunks; ++i) store(out + h * args.vo + column + 16 * i, mul(acc[h][i], splat(inverse[h])));
    }
}

// The last 8 columns of a head size that is not a multiple of 16.
template <int kQueries>
inline void sum_last_values(const AttentionArgs& args, const float* weights, int64_t padded, const float* inverse, int column,
                            float* out) {
    const auto* value = static_cast<const uint16_t*>(args.v) + column;
    Lanes acc[kQueries];
    for (int h = 0; h < kQueries; ++h) acc[h] = zero();
    for (int j = 0; j < args.n_keys; ++j, value += args.vo) {
        const Lanes v = load8_f16(value);
        for (int h = 0; h < kQueries; ++h) acc[h] = fma(splat(weights[h * padded + j]), v, acc[h]);
    }
    for (int h = 0; h < kQueries; ++h) store8(out + h * args.vo + column, mul(acc[h], splat(inverse[h])));
}

template <int kQueries>
inline void attend(const AttentionArgs& args, int first_query, int hidden) {
    const int64_t padded = (args.n_keys + 15) / 16 * 16;
    float* scores = args.work + first_query * padded;
    float* out = args.out + static_cast<int64_t>(first_query) * args.vo;
    score_keys<kQueries>(args, args.q + static_cast<int64_t>(first_query) * args.qk, scores, padded);
    float inverse[kQueries];
    for (int h = 0; h < kQueries; ++h) inverse[h] = weigh(args, scores + h * padded, padded, hidden);
    int column = 0;
    for (; column + 16 * kValueChunks <= args.vo; column += 16 * kValueChunks) {
        sum_values<kQueries, kValueChunks>(args, scores, padded, inverse, column, out);
    }
    for (; column + 16 <= args.vo; column += 16) {
        sum_values<kQueries, 1>(args, scores, padded, inverse, column, out);
    }
    if (column < args.vo) sum_last_values<kQueries>(args, scores, padded, inverse, column, out);
}

// Leaves out whole lanes of keys before the token's window; those that remain before it are hidden.
inline void attend_token(AttentionArgs args) {
    const int first = args.window && args.n_keys > args.window ? args.n_keys - args.window : 0, hidden = first % 16;
    args.k = static_cast<const uint16_t*>(args.k) + int64_t{first - hidden} * args.qk;
    args.v = static_cast<const uint16_t*>(args.v) + int64_t{first - hidden} * args.vo;
    args.n_keys -= first - hidden;
    int h = 0;
    for (; h + 4 <= args.n_queries; h += 4) attend<4>(args, h, hidden);
    switch (args.n_queries - h) {
        case 3: attend<3>(args, h, hidden); break;
        case 2: attend<2>(args, h, hidden); break;
        case 1: attend<1>(args, h, hidden); break;
        default: break;
    }
}

inline void attend_f16(AttentionArgs args) {
    for (int t = 0; t < args.n_tokens; ++t) {
        attend_token(args);
        args.q += args.q_stride, args.out += args.out_stride, ++args.n_keys;
    }
}

}  // namespace
}  // namespace edge
