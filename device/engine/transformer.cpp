#include "transformer.h"

#include <algorithm>

#include "rope_angles.h"

namespace edge {
namespace {

void add(float* x, const float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

// Which of a panel's tiles fall to thread `t` of `n` when the bytes [begin, begin + n_tiles * tile_bytes) out of
// `total` are shared out evenly. Every tile goes to exactly one thread.
struct TileShare {
    int begin, end;
};
TileShare share_tiles(int64_t total, int64_t begin, int64_t tile_bytes, int n_tiles, int t, int n) {
    const auto cut = [&](int thread) {
        const int64_t target = total * thread / n - begin;
        return static_cast<int>(std::clamp<int64_t>((target + tile_bytes - 1) / tile_bytes, 0, n_tiles));
    };
    return {cut(t), cut(t + 1)};
}

// Bytes of one tile of rows: of all its panels when they lie side by side.
int64_t side_by_side_bytes(const Weight& weight) {
    int64_t bytes = 0;
    for (const WeightPanel& panel : weight.panels) bytes += panel.tile_bytes;
    return bytes;
}

int64_t total_bytes(const Weight& weight) {
    int64_t bytes = 0;
    for (const WeightPanel& panel : weight.panels) bytes += panel.tile_bytes * panel_tiles(panel.panel);
    return bytes;
}

}  // namespace

bool Transformer::forward(const int32_t* tokens, int n, int64_t position, const std::atomic<bool>& cancelled) {
    const int64_t d_model = weights_.d_model;
    const Panel& embed = weights_.embed.panels[0].panel;
    pool_.each(n, [&](int64_t t, int) {
        ops().embed_row_q8(embed, tokens[t], weights_.embedding_scale, work_.x + t * d_model);
    });
    for (size_t b = 0; b < weights_.blocks.size(); ++b) {
        const Block& block = weights_.blocks[b];
        if (cancelled.load(std::memory_order_relaxed)) return false;
        if (!block.dropped) {
            if (block.kind == BlockKind::attention) {
                normalize(block.norm, work_.x, block.q.group, n);
                attention(block, static_cast<int>(b), n, position);
            } else {
                normalize(block.norm, work_.x, block.gate.group, n);
                mlp(block, n);
            }
            for (int64_t t = 0; t < n && block.bias; ++t) add(work_.y + t * d_model, block.bias, d_model);
            add(work_.x, work_.y, n * d_model);
        } else if (block.bias) {
            for (int64_t t = 0; t < n; ++t) add(work_.x + t * d_model, block.bias, d_model);
        }
    }
    return true;
}

void Transformer::head(int first, int n, float* logits) {
    normalize(weights_.norm, work_.x + int64_t{first} * weights_.d_model, weights_.head.group, n);
    multiply({{&weights_.head, logits, weights_.vocab_size}}, n);
}

// y = rms_norm(x), and its quantized form in `activations`.
void Transformer::normalize(const float* gain, const float* x, int group, int n) {
    const int d_model = weights_.d_model;
    pool_.each(n, [&](int64_t t, int) {
        ops().rms_norm(x + t * d_model, gain, weights_.norm_eps, d_model, work_.y + t * d_model);
    });
    quantize(work_.y, d_model, d_model, group, n);
}

void Transformer::quantize(const float* x, int64_t stride, int columns, int group, int n) {
    work_.activations.columns = columns;
    work_.activations.group = group;
    pool_.each(n, [&](int64_t t, int) {
        Activations row = work_.activations;
        row.codes += t * row.stride;
        row.scales += t * row.group_stride;
        row.sums += t * row.group_stride;
        ops().quantize(x + t * stride, stride, 1, row);
    });
}

// y = weight * activations for each product, all threads at once; tiles are shared out by their bytes.
void Transformer::multiply(std::initializer_list<Product> products, int n) {
    int64_t total = 0;
    for (const Product& product : products) total += total_bytes(*product.weight);
    pool_.run([&](int thread) {
        int64_t begin = 0;
        for (const Product& product : products) {
            const Weight& weight = *product.weight;
            const int64_t column_tile_bytes = weight.column_panels ? side_by_side_bytes(weight) : 0;
            for (const WeightPanel& panel : weight.panels) {
                const int64_t tile_bytes = weight.column_panels ? column_tile_bytes : panel.tile_bytes;
                const int n_tiles = panel_tiles(panel.panel);
                const TileShare tiles = share_tiles(total, begin, tile_bytes, n_tiles, thread, pool_.size());
                if (tiles.begin < tiles.end) {
                    panel.matmul(panel.panel, work_.activations, panel.column_begin, n, tiles.begin, tiles.end,
                                 product.y + panel.row_begin, product.y_stride, panel.column_begin > 0);
                }
                if (!weight.column_panels) begin += tile_bytes * n_tiles;
            }
            if (weight.column_panels) begin += total_bytes(weight);
        }
    });
}

// From the quantized normed residual to the attention's output in y.
void Transformer::attention(const Block& block, int index, int n, int64_t position) {
    const int64_t wide = work_.wide, kv = work_.kv;
    multiply({{&block.q, work_.wide1, wide}, {&block.k, work_.keys, kv}, {&block.v, work_.values, kv}}, n);
    pool_.each(n, [&](int64_t t, int thread) { turn_and_store(block, index, static_cast<int>(t), position + t, thread); });
    const int64_t n_heads = block.n_kv_heads;
    pool_.each(n * n_heads, [&](int64_t item, int thread) {
        const int token = static_cast<int>(item / n_heads);
        attend(block, index, static_cast<int>(item % n_heads), token, position + token, thread);
    });
    pool_.each(n, [&](int64_t t, int) {
        ops().merge_heads(work_.wide1 + t * wide, block.n_heads, block.vo, block.vo_quantum, work_.wide2 + t * wide);
    });
    quantize(work_.wide2, wide, block.o.columns, block.o.group, n);
    multiply({{&block.o, work_.y, weights_.d_model}}, n);
}

// Queries (wide1) get their bias and position and go to wide2, keys and values into the cache.
void Transformer::turn_and_store(const Block& block, int index, int token, int64_t position, int thread) {
    const Workspace::Thread& own = work_.threads[static_cast<size_t>(thread)];
    float* q = work_.wide1 + token * work_.wide;
    float* k = work_.keys + token * work_.kv;
    const float* v = work_.values + token * work_.kv;
    if (block.row_bias[0]) add(q, block.row_bias[0], block.q.rows);
    if (block.row_bias[1]) add(k, block.row_bias[1], block.k.rows);
    rope_angles(block.inv_freq, block.n_kv_heads * block.qk / 2, position, own.cosine, own.sine);
    ops().rope({q, own.cosine, own.sine, work_.wide2 + token * work_.wide, block.n_heads, block.n_kv_heads, block.qk,
                block.qk_quantum});
    ops().rope({k, own.cosine, own.sine, own.key, block.n_kv_heads, block.n_kv_heads, block.qk, block.qk_quantum});
    ops().rope({v, nullptr, nullptr, own.value, block.n_kv_heads, block.n_kv_heads, block.vo, block.vo_quantum});
    for (int head = 0; head < block.n_kv_heads; ++head) {
        cache_.store(index, head, position, own.key + head * block.qk, own.value + head * block.vo);
    }
}

// The query heads of one key/value head, from wide2 to wide1, both head-major.
void Transformer::attend(const Block& block, int index, int head, int token, int64_t position, int thread) {
    const int n_queries = block.n_heads / block.n_kv_heads;
    AttentionArgs args{};
    cache_.view(index, head, args);
    args.q = work_.wide2 + token * work_.wide + int64_t{head} * n_queries * block.qk;
    args.out = work_.wide1 + token * work_.wide + int64_t{head} * n_queries * block.vo;
    args.scores = work_.threads[static_cast<size_t>(thread)].scores;
    args.softmax_scale = block.softmax_scale;
    args.n_queries = n_queries;
    args.n_keys = static_cast<int32_t>(position + 1);
    if (cache_.bits() == 8) {
        ops().attention_q8(args);
    } else {
        ops().attention_f16(args);
    }
}

// From the quantized normed residual to down(silu(gate) * up) in y.
void Transformer::mlp(const Block& block, int n) {
    const int64_t wide = work_.wide;
    multiply({{&block.gate, work_.wide1, wide}, {&block.up, work_.wide2, wide}}, n);
    pool_.each(n, [&](int64_t t, int) {
        float* gate = work_.wide1 + t * wide;
        float* up = work_.wide2 + t * wide;
        if (block.row_bias[0]) add(gate, block.row_bias[0], block.width);
        if (block.row_bias[1]) add(up, block.row_bias[1], block.width);
        ops().silu_mul(gate, up, block.width);
    });
    quantize(work_.wide1, wide, block.width, block.down.group, n);
    multiply({{&block.down, work_.y, weights_.d_model}}, n);
}

}  // namespace edge
