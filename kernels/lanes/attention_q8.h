// attention_q8 (ops.h): one pass over the keys; each block of keys and values meets all rows (a query head of a token each)
// while it lies in the first-level cache. Include after a lanes_*.h.
//
// Dots: the integer products, the only part that differs between instruction sets. Up to four rows at once:
//   keys<rows>(queries, first_row, k, qk, n_tiles, out)          out[row * 64 + key]: queries times n_tiles tiles of keys
//   values<rows>(p, v, padded_vo, n_columns, n_keys, out)        out[row * 64 + column]: n_columns <= 64, a multiple of 16,
//                                                                of p[row * 64 + key] times v, over n_keys (rounded up to 4)
#pragma once
#include "kernels/lanes/exp.h"
#include "kernels/lanes/quantize.h"
#include "kernels/ops.h"

namespace edge {
namespace {

constexpr float kLowestScore = -3.4e38f;

struct Queries {
    int8_t* codes;    // (n_rows, stride)
    int32_t* sums;    // of a row's codes
    int64_t stride;
};

// What is kept of every row between blocks, in args.work.
struct AttentionRows {
    Queries queries;
    float* factors;   // scale of the query * softmax_scale
    float* most;      // m
    float* lanes;     // (n_rows, 16) l
    float* totals;    // (n_rows, padded vo) acc
    int64_t padded_vo;
    int n;

    explicit AttentionRows(const AttentionArgs& args) : padded_vo(padded_values(args.vo)), n(args.n_tokens * args.n_queries) {
        queries.stride = (args.qk + 63) / 64 * 64;
        queries.codes = reinterpret_cast<int8_t*>(args.work);
        lanes = args.work + n * queries.stride / 4;
        totals = lanes + 16 * n;
        factors = totals + n * padded_vo;
        most = factors + n;
        queries.sums = reinterpret_cast<int32_t*>(most + n);
        for (int r = 0; r < n; ++r) {
            const float* q = args.q + r / args.n_queries * args.q_stride + int64_t{r % args.n_queries} * args.qk;
            quantize_group(q, args.qk, queries.codes + r * queries.stride, factors + r, queries.sums + r);
            factors[r] *= args.softmax_scale;
            most[r] = kLowestScore;
        }
        for (int64_t i = 0; i < n * (16 + padded_vo); ++i) lanes[i] = 0.0f;
    }
};

struct KeyBlock {
    const int8_t* k;
    const int8_t* v;
    alignas(64) float k_scales[kKeyBlock];
    alignas(64) float v_scales[kKeyBlock];

    KeyBlock(const AttentionArgs& args, int begin)
        : k(static_cast<const int8_t*>(args.k) + int64_t{begin} * args.qk),
          v(static_cast<const int8_t*>(args.v) + begin * padded_values(args.vo)) {
        for (int i = 0; i < kKeyBlock; i += 16) {
            store(k_scales + i, load_f16(args.k_scales + begin + i));
            store(v_scales + i, load_f16(args.v_scales + begin + i));
        }
    }
};

// How the block enters acc: acc = fma(products, scale, acc * factor).
struct Share {
    float factor, scale;
};

// What plain attention does not have; code for it is apart, so that it costs plain attention nothing.
struct Special {
    float softcap;
    int hidden;  // keys at the beginning of the block that lie before the row's window
};

// Caps scores, and hides keys that lie before the window.
template <int kChunks>
[[gnu::noinline]] inline void specialize(Lanes* s, const Special& special) {
    alignas(64) float scores[16 * kChunks];
    for (int i = 0; i < kChunks; ++i) store(scores + 16 * i, special.softcap > 0.0f ? softcapped(s[i], special.softcap) : s[i]);
    for (int j = 0; j < special.hidden; ++j) scores[j] = kLowestScore;
    for (int i = 0; i < kChunks; ++i) s[i] = load(scores + 16 * i);
}

// One row: from products with n_keys keys of the block to the codes p of their weights. kChunks * 16 >= n_keys.
template <int kChunks, bool kPlain>
[[gnu::noinline]] inline Share weigh(const int32_t* dots, int n_keys, const KeyBlock& block, const AttentionRows& rows, int row, uint8_t* p,
                                     const Special& special) {
    const Lanes f = splat(rows.factors[row]);
    Lanes s[kChunks];
    for (int i = 0; i < kChunks; ++i) s[i] = mul(from_ints(dots + 16 * i), mul(load(block.k_scales + 16 * i), f));
    if constexpr (!kPlain) specialize<kChunks>(s, special);
    if (n_keys < 16 * kChunks) {  // keys that this token does not see
        alignas(64) float last[16];
        store(last, s[kChunks - 1]);
        for (int j = n_keys - 16 * (kChunks - 1); j < 16; ++j) last[j] = kLowestScore;
        s[kChunks - 1] = load(last);
    }
    Lanes highest = s[0];
    for (int i = 1; i < kChunks; ++i) highest = max(highest, s[i]);
    const float before = rows.most[row], found = largest(highest), most = found > before ? found : before;
    rows.most[row] = most;
    const float factor = found > before ? edge_exp(before - most) : 1.0f;
    Lanes sum_lanes = mul(load(rows.lanes + 16 * row), splat(factor));
    for (int i = 0; i < kChunks; ++i) {
        const Lanes e = exponential(sub(s[i], splat(most)));
        sum_lanes = add(sum_lanes, e);
        s[i] = mul(e, load(block.v_scales + 16 * i));
    }
    store(rows.lanes + 16 * row, sum_lanes);
    highest = s[0];
    for (int i = 1; i < kChunks; ++i) highest = max(highest, s[i]);
    const float heaviest = largest(highest);
    const Lanes inverse = splat(heaviest >= 1e-30f ? 255.0f / heaviest : 0.0f);
    for (int i = 0; i < kChunks; ++i) store_u8(p + 16 * i, round_half_even(mul(s[i], inverse)));
    return {factor, heaviest / 255.0f};
}

template <bool kPlain>
inline Share weigh_some(const int32_t* dots, int n_keys, const KeyBlock& block, const AttentionRows& rows, int row, uint8_t* p,
                        const Special& special) {
    if (n_keys > 48) return weigh<4, kPlain>(dots, n_keys, block, rows, row, p, special);
    for (int i = 0; i < kKeyBlock; i += 16) store_u8(p + i, no_ints());
    if (n_keys > 32) return weigh<3, kPlain>(dots, n_keys, block, rows, row, p, special);
    if (n_keys > 16) return weigh<2, kPlain>(dots, n_keys, block, rows, row, p, special);
    return weigh<1, kPlain>(dots, n_keys, block, rows, row, p, special);
}

// Rows first .. first + kRows - 1 with one block; the last of them sees n_keys of it, the one before as many or one less.
template <class Dots, int kRows, bool kPlain>
inline void attend_rows(const AttentionArgs& args, const AttentionRows& rows, const KeyBlock& block, int first, int begin) {
    alignas(64) int32_t dots[kRows * kKeyBlock];
    alignas(64) uint8_t p[kRows * kKeyBlock];
    Share shares[kRows];
    const auto seen = [&](int r) {
        const int n = args.n_keys + (first + r) / args.n_queries - begin;
        return n < kKeyBlock ? n : kKeyBlock;
    };
    const int n_keys = seen(kRows - 1);
    Dots::template keys<kRows>(rows.queries, first, block.k, args.qk, (n_keys + 15) / 16, dots);
    for (int r = 0; r < kRows; ++r) {
        const int before = kPlain || args.window == 0 ? 0 : args.n_keys + (first + r) / args.n_queries - args.window - begin;
        const Special special{args.softcap, before > 0 ? before : 0};
        shares[r] = weigh_some<kPlain>(dots + r * kKeyBlock, seen(r), block, rows, first + r, p + r * kKeyBlock, special);
    }
    for (int64_t column = 0; column < rows.padded_vo; column += 64) {
        const int n_columns = rows.padded_vo - column < 64 ? static_cast<int>(rows.padded_vo - column) : 64;
        Dots::template values<kRows>(p, block.v + 4 * column, rows.padded_vo, n_columns, n_keys, dots);
        for (int r = 0; r < kRows; ++r) {
            float* total = rows.totals + (first + r) * rows.padded_vo + column;
            for (int c = 0; c < n_columns; c += 16) {
                const Lanes kept = mul(load(total + c), splat(shares[r].factor));
                store(total + c, fma(from_ints(dots + 64 * r + c), splat(shares[r].scale), kept));
            }
        }
    }
}

// All rows with all blocks that they see.
template <class Dots, bool kPlain>
inline void attend_blocks(const AttentionArgs& args, const AttentionRows& rows) {
    const int64_t window = kPlain || args.window == 0 ? int64_t{1} << 32 : args.window;
    const int64_t unseen = args.n_keys - window;  // keys that no token sees
    for (int begin = unseen > 0 ? static_cast<int>(unseen) / kKeyBlock * kKeyBlock : 0; begin < args.n_keys + args.n_tokens - 1;
         begin += kKeyBlock) {
        const KeyBlock block(args, begin);
        const int first_token = begin < args.n_keys ? 0 : begin - args.n_keys + 1;  // earlier ones do not see the block
        int n = rows.n;
        if constexpr (!kPlain) {  // nor do later ones, whose window begins behind it
            const int64_t tokens = begin + kKeyBlock - unseen;
            if (tokens < args.n_tokens) n = static_cast<int>(tokens) * args.n_queries;
        }
        int r = first_token * args.n_queries;
        for (; r + 4 <= n; r += 4) attend_rows<Dots, 4, kPlain>(args, rows, block, r, begin);
        switch (n - r) {
            case 3: attend_rows<Dots, 3, kPlain>(args, rows, block, r, begin); break;
            case 2: attend_rows<Dots, 2, kPlain>(args, rows, block, r, begin); break;
            case 1: attend_rows<Dots, 1, kPlain>(args, rows, block, r, begin); break;
            default: break;
        }
    }
}

template <class Dots>
inline void attend_q8(const AttentionArgs& args) {
    const AttentionRows rows(args);
    if (args.window == 0 && args.softcap == 0.0f) {
        attend_blocks<Dots, true>(args, rows);
    } else {
        attend_blocks<Dots, false>(args, rows);
    }
    for (int r = 0; r < rows.n; ++r) {
        const Lanes inverse = splat(1.0f / sum(load(rows.lanes + 16 * r)));
        const float* total = rows.totals + r * rows.padded_vo;
        float* out = args.out + r / args.n_queries * args.out_stride + int64_t{r % args.n_queries} * args.vo;
        int c = 0;
        for (; c + 16 <= args.vo; c += 16) store(out + c, mul(load(total + c), inverse));
        if (c < args.vo) store8(out + c, mul(load8(total + c), inverse));
    }
}

}  // namespace
}  // namespace edge
