#include "workspace.h"

#include <algorithm>

#include "bytes.h"

namespace edge {
namespace {

constexpr int32_t kChunkTokens = 128;

struct Extents {
    int64_t wide = 0, kv = 0, head = 0, queries = 0, attention = 0;
    int64_t mixer_wide = 0, mixer_states = 0, mixer_heads = 0;
    int64_t columns = 0, groups = 0;  // of quantized activations

    void reads(const Weight& weight) {
        columns = std::max<int64_t>(columns, weight.columns);
        groups = std::max<int64_t>(groups, (weight.columns + weight.group - 1) / weight.group);
    }
};

Extents measure(const Weights& weights, int32_t context_tokens, int32_t kv_bits) {
    Extents e;
    e.reads(weights.head);
    for (const Block& block : weights.blocks) {
        if (block.dropped) continue;
        if (block.kind == BlockKind::attention) {
            const int64_t head = std::max(block.qk, block.vo);
            e.wide = std::max(e.wide, block.n_heads * head);
            e.kv = std::max(e.kv, block.n_kv_heads * head);
            e.head = std::max<int64_t>(e.head, head);
            const int n_queries = block.n_heads / block.n_kv_heads;
            e.queries = std::max<int64_t>(e.queries, int64_t{n_queries} * block.qk);
            const int64_t rows = int64_t{n_queries} * attention_tokens(n_queries);
            e.attention = std::max(e.attention, kv_bits == 8 ? attention_q8_work(rows, block.qk, block.vo)
                                                             : attention_f16_work(n_queries, context_tokens));
            for (const Weight* weight : {&block.q, &block.o}) e.reads(*weight);
        } else if (block.kind == BlockKind::ssm) {
            const SsmBlock& ssm = block.ssm;
            e.wide = std::max(e.wide, ssm.rows());
            e.mixer_wide = std::max(e.mixer_wide, ssm.rows());
            e.mixer_states = std::max(e.mixer_states, ssm.states());
            e.mixer_heads = std::max<int64_t>(e.mixer_heads, ssm.n_heads);
            for (const Weight* weight : {&ssm.z, &ssm.out}) e.reads(*weight);
        } else {
            e.wide = std::max<int64_t>(e.wide, block.width);
            for (const Weight* weight : {&block.up, &block.down}) e.reads(*weight);
        }
    }
    return e;
}

}  // namespace

Workspace::Workspace(Arena& arena, const Weights& weights, int32_t context_tokens, int32_t kv_bits, int n_threads,
                     int32_t chunk_tokens)
    : n(std::min(chunk_tokens ? chunk_tokens : kChunkTokens, context_tokens)), threads(static_cast<size_t>(n_threads)) {
    const Extents e = measure(weights, context_tokens, kv_bits);
    const auto rows = [&](int64_t length) { return multiply_bytes(static_cast<uint64_t>(n), static_cast<uint64_t>(length)); };
    wide = e.wide;
    kv = e.kv;
    x = arena.take<float>(rows(weights.d_model));
    y = arena.take<float>(rows(weights.d_model));
    wide1 = arena.take<float>(rows(wide));
    wide2 = arena.take<float>(rows(wide));
    keys = arena.take<float>(rows(kv));
    values = arena.take<float>(rows(kv));
    mixer = {e.mixer_wide, e.mixer_states, e.mixer_heads, arena.take<float>(rows(e.mixer_wide)), {}, {}, nullptr, nullptr};
    for (float*& projected : mixer.projected) projected = arena.take<float>(rows(mixer.states));
    for (float*& state_rows : mixer.state_rows) state_rows = arena.take<float>(rows(mixer.states));
    mixer.step = arena.take<float>(rows(mixer.heads));
    mixer.decay = arena.take<float>(rows(mixer.heads));
    activations.stride = static_cast<int32_t>((e.columns + 63) / 64 * 64);
    activations.group_stride = static_cast<int32_t>((e.groups + 15) / 16 * 16);
    activations.codes = arena.take<int8_t>(rows(activations.stride));
    activations.scales = arena.take<float>(rows(activations.group_stride));
    activations.sums = arena.take<int32_t>(rows(activations.group_stride));
    for (Thread& thread : threads) {
        thread.attention = arena.take<float>(static_cast<uint64_t>(e.attention));
        thread.queries = arena.take<float>(static_cast<uint64_t>(e.queries));
        thread.cosine = arena.take<float>(static_cast<uint64_t>(e.head));
        thread.sine = arena.take<float>(static_cast<uint64_t>(e.head));
        thread.key = arena.take<float>(static_cast<uint64_t>(e.head));
        thread.value = arena.take<float>(static_cast<uint64_t>(e.head));
        thread.codes = arena.take<int8_t>(static_cast<uint64_t>(e.head));
    }
}

}  // namespace edge
