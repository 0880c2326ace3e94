#include "transformer.h"

#include <algorithm>

#include "rope_angles.h"

namespace edge {
namespace {

void square_above_zero(float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] = x[i] > 0 ? x[i] * x[i] : 0;
}

void add(float* x, const float* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

constexpr int64_t kStepBytes = 16 << 10;  // weights that a thread takes at least: claiming them costs a cache miss
constexpr int64_t kStepTokens = 4;        // likewise of work on single rows
constexpr int kBlockTiles = 4;            // a product with several tokens takes whole blocks of tiles

// Tiles of a panel at [begin, begin + n_tiles * tile_bytes) of a burst that fall to its bytes [low, high): those whose block
// begins there. Every tile falls to exactly one of ranges that cover the burst.
struct TileRange {
    int begin, end;
};
TileRange tiles_within(int64_t low, int64_t high, int64_t begin, int64_t tile_bytes, int n_tiles, int block) {
    const int64_t block_bytes = tile_bytes * block;
    const auto cut = [&](int64_t at) {
        const int64_t n_blocks = at <= begin ? 0 : (at - begin + block_bytes - 1) / block_bytes;
        return static_cast<int>(std::min<int64_t>(n_blocks * block, n_tiles));
    };
    return {cut(low), cut(high)};
}

}  // namespace

bool Transformer::forward(const int32_t* tokens, int n, int64_t position, const std::atomic<bool>& cancelled) {
    const int64_t d_model = weights_.d_model;
    const WeightPanel& embed = weights_.embed.panels[0];
    has_output_ = false;
    if (position == 0) states_.clear();
    const auto look_up = [&](int64_t t, int) {
        ops().embed_row(embed.panel, embed.bits, tokens[t], weights_.embedding_scale, work_.x + t * d_model);
    };
    pool_.each(n, look_up, kStepTokens);
    for (size_t b = 0; b < weights_.blocks.size(); ++b) {
        const Block& block = weights_.blocks[b];
        if (cancelled.load(std::memory_order_relaxed)) return false;
        if (block.dropped) {
            if (block.bias) add_bias(block.bias, n);
            continue;
        }
        if (block.kind == BlockKind::attention) {
            normalize(block.norm, block.q.group, 0, n);
            attention(block, static_cast<int>(b), n, position);
        } else if (block.kind == BlockKind::ssm) {
            normalize(block.norm, block.ssm.z.group, 0, n);
            ssm(block, static_cast<int>(b), n);
        } else {
            normalize(block.norm, block.up.group, 0, n);
            block.gated ? mlp(block, n) : ungated_mlp(block, n);
        }
        has_output_ = true;
        output_bias_ = block.bias;
    }
    return true;
}

void Transformer::head(int first, int n, float* logits) {
    normalize(weights_.norm, weights_.head.group, first, n);
    multiply({{&weights_.head, logits, weights_.vocab_size}}, n);
}

// x += y + bias of the last block, for one token. It waits until the row is read again.
void Transformer::add_output(int64_t token) {
    if (!has_output_) return;
    float* x = work_.x + token * weights_.d_model;
    float* y = work_.y + token * weights_.d_model;
    if (output_bias_) add(y, output_bias_, weights_.d_model);
    add(x, y, weights_.d_model);
}

// A dropped block is its bias alone.
void Transformer::add_bias(const float* bias, int n) {
    const auto row = [&](int64_t t, int) {
        add_output(t);
        add(work_.x + t * weights_.d_model, bias, weights_.d_model);
    };
    pool_.each(n, row, kStepTokens);
    has_output_ = false;
}

// rms_norm(x) of tokens first .. first + n - 1, quantized, as the first rows of `activations`.
void Transformer::normalize(const float* gain, int group, int first, int n) {
    const int d_model = weights_.d_model;
    shape_activations(d_model, group);
    const auto row = [&](int64_t t, int) {
        const int64_t token = first + t;
        float* y = work_.y + token * d_model;
        add_output(token);
        ops().rms_norm(work_.x + token * d_model, gain, weights_.norm_eps, d_model, y);
        quantize(y, t);
    };
    pool_.each(n, row, kStepTokens);
}

void Transformer::shape_activations(int columns, int group) {
    work_.activations.columns = columns;
    work_.activations.group = group;
}

// One row of activations.
void Transformer::quantize(const float* x, int64_t token) {
    Activations row = work_.activations;
    row.codes += token * row.stride;
    row.scales += token * row.group_stride;
    row.sums += token * row.group_stride;
    ops().quantize(x, row.columns, 1, row);
}

// y = weight * activations for each product, all threads at once; what a thread takes is measured in bytes of weights.
void Transformer::multiply(std::initializer_list<Product> products, int n) {
    int64_t total = 0;
    for (const Product& product : products) total += product.weight->bytes;
    pool_.share(total, kStepBytes, [&](int64_t low, int64_t high, int) {
        int64_t begin = 0;
        for (const Product& product : products) {
            const int64_t end = begin + product.weight->bytes;
            if (begin < high && low < end) multiply_part(product, n, low - begin, high - begin);
            begin = end;
        }
    });
}

// The part of a product that falls to bytes [low, high) of its weight. Column panels side by side share their rows' bytes.
void Transformer::multiply_part(const Product& product, int n, int64_t low, int64_t high) {
    const Weight& weight = *product.weight;
    int64_t begin = 0;
    for (const WeightPanel& panel : weight.panels) {
        const int64_t tile_bytes = weight.column_panels ? weight.row_tile_bytes : panel.tile_bytes;
        const int n_tiles = panel_tiles(panel.panel);
        if (begin >= high) return;
        if (begin + tile_bytes * n_tiles > low) {
            const TileRange tiles = tiles_within(low, high, begin, tile_bytes, n_tiles, n == 1 ? 1 : kBlockTiles);
            if (tiles.begin < tiles.end) {
                panel.matmul(panel.panel, work_.activations, panel.column_begin, n, tiles.begin, tiles.end,
                             product.y + panel.row_begin, product.y_stride, panel.column_begin > 0);
            }
        }
        if (!weight.column_panels) begin += tile_bytes * n_tiles;
    }
}

// From the quantized normed residual to the attention's output in y.
void Transformer::attention(const Block& block, int index, int n, int64_t position) {
    const int64_t wide = work_.wide, kv = work_.kv;
    multiply({{&block.q, work_.wide1, wide}, {&block.k, work_.keys, kv}, {&block.v, work_.values, kv}}, n);
    pool_.each(n, [&](int64_t t, int thread) { turn_and_store(block, index, static_cast<int>(t), position + t, thread); });
    const int64_t n_heads = block.n_kv_heads;
    const int step = attention_tokens(block.n_heads / block.n_kv_heads);
    pool_.each((n + step - 1) / step * n_heads, [&](int64_t item, int thread) {
        const int token = static_cast<int>(item / n_heads) * step;
        attend(block, index, static_cast<int>(item % n_heads), token, std::min(step, n - token), position + token, thread);
    });
    shape_activations(block.o.columns, block.o.group);
    const auto merge = [&](int64_t t, int) {
        ops().merge_heads(work_.wide1 + t * wide, block.n_heads, block.vo, block.vo_quantum, work_.wide2 + t * wide);
        quantize(work_.wide2 + t * wide, t);
    };
    pool_.each(n, merge, kStepTokens);
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
        cache_.store(index, head, position, own.key + head * block.qk, own.value + head * block.vo, own.codes);
    }
}

// The query heads of one key/value head, of n tokens, from wide2 to wide1, both head-major.
void Transformer::attend(const Block& block, int index, int head, int token, int n, int64_t position, int thread) {
    const int n_queries = block.n_heads / block.n_kv_heads;
    AttentionArgs args{};
    cache_.view(index, head, args);
    args.q = work_.wide2 + token * work_.wide + int64_t{head} * n_queries * block.qk;
    args.out = work_.wide1 + token * work_.wide + int64_t{head} * n_queries * block.vo;
    args.q_stride = args.out_stride = work_.wide;
    args.work = work_.threads[static_cast<size_t>(thread)].attention;
    args.softmax_scale = block.softmax_scale;
    args.n_tokens = n;
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
    shape_activations(block.width, block.down.group);
    const auto activate = [&](int64_t t, int) {
        float* gate = work_.wide1 + t * wide;
        float* up = work_.wide2 + t * wide;
        if (block.row_bias[0]) add(gate, block.row_bias[0], block.width);
        if (block.row_bias[1]) add(up, block.row_bias[1], block.width);
        ops().silu_mul(gate, up, block.width);
        quantize(gate, t);
    };
    pool_.each(n, activate, kStepTokens);
    multiply({{&block.down, work_.y, weights_.d_model}}, n);
}

// From the quantized normed residual to down(relu(up)^2) in y.
void Transformer::ungated_mlp(const Block& block, int n) {
    const int64_t wide = work_.wide;
    multiply({{&block.up, work_.wide2, wide}}, n);
    shape_activations(block.width, block.down.group);
    const auto activate = [&](int64_t t, int) {
        float* up = work_.wide2 + t * wide;
        if (block.row_bias[1]) add(up, block.row_bias[1], block.width);
        square_above_zero(up, block.width);
        quantize(up, t);
    };
    pool_.each(n, activate, kStepTokens);
    multiply({{&block.down, work_.y, weights_.d_model}}, n);
}

}  // namespace edge
