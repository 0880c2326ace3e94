#include "workspace.h"

#include <algorithm>

#include "bytes.h"

namespace edge {
namespace {

constexpr int32_t kChunkTokens = 128;

struct Extents {
    int64_t wide = 0, kv = 0, scores = 0;
    int64_t columns = 0, groups = 0;  // of quantized activations

    void reads(const Weight& weight) {
        columns = std::max<int64_t>(columns, weight.columns);
        groups = std::max<int64_t>(groups, (weight.columns + weight.group - 1) / weight.group);
    }
};

Extents measure(const Weights& weights, int32_t context_tokens) {
    Extents e;
    e.reads(weights.head);
    for (const Block& block : weights.blocks) {
        if (block.dropped) continue;
        if (block.kind == BlockKind::attention) {
            const int64_t head = std::max(block.qk, block.vo);
            e.wide = std::max(e.wide, block.n_heads * head);
            e.kv = std::max(e.kv, block.n_kv_heads * head);
            e.scores = std::max(e.scores, int64_t{block.n_heads / block.n_kv_heads} * ((int64_t{context_tokens} + 15) / 16 * 16));
            for (const Weight* weight : {&block.q, &block.o}) e.reads(*weight);
        } else {
            e.wide = std::max<int64_t>(e.wide, block.width);
            for (const Weight* weight : {&block.gate, &block.down}) e.reads(*weight);
        }
    }
    return e;
}

}  // namespace

Workspace::Workspace(Arena& arena, const Weights& weights, int32_t context_tokens, int n_threads,
                     int32_t chunk_tokens)
    : n(std::min(chunk_tokens ? chunk_tokens : kChunkTokens, context_tokens)), threads(static_cast<size_t>(n_threads)) {
    const Extents e = measure(weights, context_tokens);
    const auto rows = [&](int64_t length) { return multiply_bytes(static_cast<uint64_t>(n), static_cast<uint64_t>(length)); };
    wide = e.wide;
    kv = e.kv;
    x = arena.take<float>(rows(weights.d_model));
    y = arena.take<float>(rows(weights.d_model));
    wide1 = arena.take<float>(rows(wide));
    wide2 = arena.take<float>(rows(wide));
    keys = arena.take<float>(rows(kv));
    values = arena.take<float>(rows(kv));
    activations.stride = static_cast<int32_t>((e.columns + 63) / 64 * 64);
    activations.group_stride = static_cast<int32_t>((e.groups + 15) / 16 * 16);
    activations.codes = arena.take<int8_t>(rows(activations.stride));
    activations.scales = arena.take<float>(rows(activations.group_stride));
    activations.sums = arena.take<int32_t>(rows(activations.group_stride));
    logits = arena.take<float>(static_cast<uint64_t>(weights.vocab_size));
    for (Thread& thread : threads) {
        thread.scores = arena.take<float>(static_cast<uint64_t>(e.scores));
        thread.cosine = arena.take<float>(static_cast<uint64_t>(kv));
        thread.sine = arena.take<float>(static_cast<uint64_t>(kv));
        thread.key = arena.take<float>(static_cast<uint64_t>(kv));
        thread.value = arena.take<float>(static_cast<uint64_t>(kv));
    }
}

}  // namespace edge
