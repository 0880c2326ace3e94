// Everything large that one session owns; measured and allocated by the same code.
#pragma once
#include "kv_cache.h"
#include "sampler.h"
#include "workspace.h"

namespace edge {

struct SessionMemory {
    SessionMemory(Arena& kv_arena, Arena& work_arena, const Weights& weights, int32_t context_tokens, int32_t kv_bits,
                  int32_t n_threads)
        : cache(kv_arena, weights, context_tokens, kv_bits),
          workspace(work_arena, weights, context_tokens, n_threads),
          sampler(work_arena, weights.vocab_size),
          history(work_arena.take<int32_t>(static_cast<uint64_t>(context_tokens))) {}

    KvCache cache;
    Workspace workspace;
    Sampler sampler;
    int32_t* history;  // (context_tokens)
};

}  // namespace edge
