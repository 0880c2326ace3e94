// A session at one level: its caches and buffers there, and the forward pass over them.
#pragma once
#include <memory>

#include "mapped_level.h"
#include "session_memory.h"
#include "threads.h"
#include "transformer.h"

namespace edge {

struct SessionLevel {
    SessionLevel(std::shared_ptr<MappedLevel> level, const Demand& demand, ThreadPool& pool);

    // Takes n_tokens of what another level's caches hold, which are of no use afterwards.
    void take(const SessionLevel& other, int32_t n_tokens);

    const std::shared_ptr<MappedLevel> level;
    Arena kv_arena, work_arena;
    LevelMemory memory;
    Transformer transformer;
};

}  // namespace edge
