// Everything large that one session owns; measured and allocated by the same code.
#pragma once
#include "kv_cache.h"
#include "sampler.h"
#include "select.h"
#include "state_cache.h"
#include "workspace.h"

namespace edge {

// What changes with the level.
struct LevelMemory {
    LevelMemory(Arena& kv_arena, Arena& work_arena, const Weights& weights, const Demand& demand)
        : cache(kv_arena, weights, demand.context_tokens, demand.kv_bits),
          states(kv_arena, weights),
          workspace(work_arena, weights, demand.context_tokens, demand.kv_bits, demand.n_threads, demand.chunk_tokens) {}

    KvCache cache;
    StateCache states;
    Workspace workspace;
};

// What stays.
struct Conversation {
    Conversation(Arena& arena, int32_t vocab_size, int32_t context_tokens)
        : sampler(arena, vocab_size),
          history(arena.take<int32_t>(static_cast<uint64_t>(context_tokens))),
          logits(arena.take<float>(static_cast<uint64_t>(vocab_size))) {}

    Sampler sampler;
    int32_t* history;  // (context_tokens)
    float* logits;     // (vocab_size) of the last token that was pushed through the model
};

}  // namespace edge
