// Everything large that one session owns; measured and allocated by the same code.
#pragma once
#include "kv_cache.h"
#include "sampler.h"
#include "select.h"
#include "state_cache.h"
#include "workspace.h"

namespace edge {

struct SessionMemory {
    SessionMemory(Arena& kv_arena, Arena& work_arena, const Weights& weights, const Demand& demand)
        : cache(kv_arena, weights, demand.context_tokens, demand.kv_bits),
          states(kv_arena, weights),
          workspace(work_arena, weights, demand.context_tokens, demand.kv_bits, demand.n_threads, demand.chunk_tokens),
          sampler(work_arena, weights.vocab_size),
          history(work_arena.take<int32_t>(static_cast<uint64_t>(demand.context_tokens))) {}

    KvCache cache;
    StateCache states;
    Workspace workspace;
    Sampler sampler;
    int32_t* history;  // (context_tokens)
};

}  // namespace edge
