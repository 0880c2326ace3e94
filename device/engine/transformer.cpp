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
constexpr int64_t kStepLogits = 4096;     // likewise of logits that are capped
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
    has_output_ = false;
    if (position == 0) states_.clear();
    const auto look_up = [&](int64_t t, int) {
        const auto behind = [token = tokens[t]](const WeightPanel& panel) { return panel.row_begin > token; };
        const auto& panels = weights_.embed.panels;
        const WeightPanel& rows = *(std::find_if(panels.begin() + 1, panels.end(), behind) - 1);
        const auto row = static_cast<int32_t>(tokens[t] - rows.row_begin);
        ops().embed_row(rows.panel, rows.bits, row, weights_.embedding_scale, work_.x + t * d_model);
    };
    {
        const OpTimer timer(timing_, Op::embed);
        pool_->each(n, look_up, kStepTokens);
    }
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
        output_norm_ = block.post_norm;
    }
    return true;
}

void Transformer::head(int first, int n, float* logits) {
    normalize(weights_.norm, weights_.head.group, first, n);
    multiply(Op::head, {{&weights_.head, logits, weights_.vocab_size}}, n);
    if (weights_.logit_softcap == 0) return;
    const int64_t total = int64_t{n} * weights_.vocab_size;
    pool_->each((total + kStepLogits - 1) / kStepLogits, [&](int64_t i, int) {
        ops().softcap(logits + i * kStepLogits, weights_.logit_softcap, std::min(kStepLogits, total - i * kStepLogits));
    });
}

void Transformer::time_ops(bool on) {
    if (on) times_ = {};
    timing_ = on ? &times_ : nullptr;
}

// x += y + bias of the last block, normed where it has a post norm, for one token. It waits until the row is read again.
void Transformer::add_output(int64_t token) {
    if (!has_output_) return;
    float* x = work_.x + token * weights_.d_model;
    float* y = work_.y + token * weights_.d_model;
    if (output_bias_) add(y, output_bias_, weights_.d_model);
    if (output_norm_) ops().rms_norm(y, output_norm_, weights_.norm_eps, weights_.d_model, y);
    add(x, y, weights_.d_model);
}

// A dropped block is its bias alone.
void Transformer::add_bias(const float* bias, int n) {
    const auto row = [&](int64_t t, int) {
        add_output(t);
        add(work_.x + t * weights_.d_model, bias, weights_.d_model);
    };
    pool_->each(n, row, kStepTokens);
    has_output_ = false;
}

// rms_norm(x) of tokens first .. first + n - 1, quantized, as the first rows of `activations`.
void Transformer::normalize(const float* gain, int group, int first, int n) {
    const OpTimer timer(timing_, Op::norm);
    const int d_model = weights_.d_model;
    shape_activations(d_model, group);
    const auto row = [&](int64_t t, int) {
        const int64_t token = first + t;
        float* y = work_.y + token * d_model;
        add_output(token);
        ops().rms_norm(work_.x + token * d_model, gain, weights_.norm_eps, d_model, y);
        quantize(y, t);
    };
    pool_->each(n, row, kStepTokens);
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
void Transformer::multiply(Op op, std::initializer_list<Product> products, int n) {
    int64_t total = 0;
    for (const Product& product : products) total += product.weight->bytes;
    const OpTimer timer(timing_, op, total);
    pool_->share(total, kStepBytes, [&](int64_t low, int64_t high, int) {
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
    multiply(Op::qkv, {{&block.q, work_.wide1, wide}, {&block.k, work_.keys, kv}, {&block.v, work_.values, kv}}, n);
    n == 1 ? attend_one(block, index, position) : attend_all(block, index, n, position);
    multiply(Op::o, {{&block.o, work_.y, weights_.d_model}}, n);
}

// One token: a head is stored by the thread that reads it next.
void Transformer::attend_one(const Block& block, int index, int64_t position) {
    {
        const OpTimer timer(timing_, Op::attention, cache_.bytes(index, position + 1));
        pool_->each(block.n_kv_heads, [&](int64_t item, int thread) {
            const int head = static_cast<int>(item);
            float* queries = work_.threads[static_cast<size_t>(thread)].queries;
            turn_and_store(block, index, head, 0, position, queries, thread);
            attend(block, index, head, 1, position, queries, work_.wide2, thread);
        });
    }
    merge(block, work_.wide2, work_.wide1, 1);
}

// Several tokens: all keys are there before a query reads them.
void Transformer::attend_all(const Block& block, int index, int n, int64_t position) {
    const int64_t n_heads = block.n_kv_heads, n_queries = block.n_heads / n_heads, wide = work_.wide;
    {
        const OpTimer timer(timing_, Op::store);
        pool_->each(n * n_heads, [&](int64_t item, int thread) {
            const int64_t token = item / n_heads, head = item % n_heads;
            float* queries = work_.wide2 + token * wide + head * n_queries * block.qk;
            turn_and_store(block, index, static_cast<int>(head), static_cast<int>(token), position + token, queries, thread);
        }, kStepTokens);
    }
    {
        const OpTimer timer(timing_, Op::attention, cache_.bytes(index, position + n));
        const int step = attention_tokens(static_cast<int>(n_queries));
        pool_->each((n + step - 1) / step * n_heads, [&](int64_t item, int thread) {
            const int64_t token = item / n_heads * step, head = item % n_heads;
            const float* queries = work_.wide2 + token * wide + head * n_queries * block.qk;
            attend(block, index, static_cast<int>(head), static_cast<int>(std::min<int64_t>(step, n - token)), position + token,
                   queries, work_.wide1 + token * wide, thread);
        });
    }
    merge(block, work_.wide1, work_.wide2, n);
}

// The heads' outputs, head-major, as the activations that the o product reads; `rows` holds them in between.
void Transformer::merge(const Block& block, const float* heads, float* rows, int n) {
    const OpTimer timer(timing_, Op::merge);
    shape_activations(block.o.columns, block.o.group);
    const auto row = [&](int64_t t, int) {
        ops().merge_heads(heads + t * work_.wide, block.n_heads, block.vo, block.vo_quantum, rows + t * work_.wide);
        quantize(rows + t * work_.wide, t);
    };
    pool_->each(n, row, kStepTokens);
}

// Heads side by side: an axis whose heads are normed has one quantum.
void Transformer::norm_heads(float* x, const float* gain, int n_heads, int size) {
    for (int h = 0; h < n_heads; ++h) ops().rms_norm(x + h * size, gain, weights_.norm_eps, size, x + h * size);
}

// Of one key/value head: its queries (in wide1) with bias, norm and position to `queries`, its key and value to the cache.
void Transformer::turn_and_store(const Block& block, int index, int head, int token, int64_t position, float* queries,
                                 int thread) {
    const Workspace::Thread& own = work_.threads[static_cast<size_t>(thread)];
    const int n_queries = block.n_heads / block.n_kv_heads, quantum = block.qk_quantum, pairs = quantum / 2;
    const int64_t q_at = int64_t{head} * n_queries * quantum, q_stride = int64_t{block.n_heads} * quantum;
    const int64_t k_at = int64_t{head} * quantum, k_stride = int64_t{block.n_kv_heads} * quantum;
    float* q = work_.wide1 + token * work_.wide + q_at;
    float* k = work_.keys + token * work_.kv + k_at;
    const float* v = work_.values + token * work_.kv + int64_t{head} * block.vo_quantum;
    for (int i = 0; i < block.qk / quantum; ++i) {
        if (block.row_bias[0]) add(q + i * q_stride, block.row_bias[0] + q_at + i * q_stride, n_queries * quantum);
        if (block.row_bias[1]) add(k + i * k_stride, block.row_bias[1] + k_at + i * k_stride, quantum);
        const float* inv_freq = block.inv_freq + (int64_t{i} * block.n_kv_heads + head) * pairs;
        rope_angles(inv_freq, pairs, position, own.cosine + i * pairs, own.sine + i * pairs);
    }
    if (block.q_norm) norm_heads(q, block.q_norm, n_queries, block.qk);
    if (block.k_norm) norm_heads(k, block.k_norm, 1, block.qk);
    ops().rope({q, own.cosine, own.sine, queries, q_stride, n_queries, block.qk, quantum});
    ops().rope({k, own.cosine, own.sine, own.key, k_stride, 1, block.qk, quantum});
    ops().rope({v, nullptr, nullptr, own.value, int64_t{block.n_kv_heads} * block.vo_quantum, 1, block.vo, block.vo_quantum});
    cache_.store(index, head, position, own.key, own.value, own.codes);
}

// The query heads of one key/value head, of n tokens; `out` is the first token's row, head-major.
void Transformer::attend(const Block& block, int index, int head, int n, int64_t position, const float* queries, float* out,
                         int thread) {
    const int n_queries = block.n_heads / block.n_kv_heads;
    AttentionArgs args{};
    cache_.view(index, head, args);
    args.q = queries;
    args.out = out + int64_t{head} * n_queries * block.vo;
    args.q_stride = args.out_stride = work_.wide;
    args.work = work_.threads[static_cast<size_t>(thread)].attention;
    args.softmax_scale = block.softmax_scale;
    args.n_tokens = n;
    args.n_queries = n_queries;
    args.n_keys = static_cast<int32_t>(position + 1);
    args.window = block.window;
    args.softcap = block.softcap;
    if (cache_.bits() == 8) {
        ops().attention_q8(args);
    } else {
        ops().attention_f16(args);
    }
}

// From the quantized normed residual to down(activation(gate) * up) in y.
void Transformer::mlp(const Block& block, int n) {
    const int64_t wide = work_.wide;
    multiply(Op::gate_up, {{&block.gate, work_.wide1, wide}, {&block.up, work_.wide2, wide}}, n);
    shape_activations(block.width, block.down.group);
    const auto activate = [&](int64_t t, int) {
        float* gate = work_.wide1 + t * wide;
        float* up = work_.wide2 + t * wide;
        if (block.row_bias[0]) add(gate, block.row_bias[0], block.width);
        if (block.row_bias[1]) add(up, block.row_bias[1], block.width);
        (block.activation == Activation::silu ? ops().silu_mul : ops().gelu_mul)(gate, up, block.width);
        quantize(gate, t);
    };
    {
        const OpTimer timer(timing_, Op::activate);
        pool_->each(n, activate, kStepTokens);
    }
    multiply(Op::down, {{&block.down, work_.y, weights_.d_model}}, n);
}

// From the quantized normed residual to down(relu(up)^2) in y.
void Transformer::ungated_mlp(const Block& block, int n) {
    const int64_t wide = work_.wide;
    multiply(Op::gate_up, {{&block.up, work_.wide2, wide}}, n);
    shape_activations(block.width, block.down.group);
    const auto activate = [&](int64_t t, int) {
        float* up = work_.wide2 + t * wide;
        if (block.row_bias[1]) add(up, block.row_bias[1], block.width);
        square_above_zero(up, block.width);
        quantize(up, t);
    };
    {
        const OpTimer timer(timing_, Op::activate);
        pool_->each(n, activate, kStepTokens);
    }
    multiply(Op::down, {{&block.down, work_.y, weights_.d_model}}, n);
}

}  // namespace edge
