#include "session_level.h"

#include <utility>

namespace edge {
namespace {

struct Sizes {
    uint64_t kv_bytes, work_bytes;
};

Sizes measure(const Weights& weights, const Demand& demand) {
    Arena kv, work;
    const LevelMemory memory(kv, work, weights, demand);
    return {kv.used(), work.used()};
}

}  // namespace

SessionLevel::SessionLevel(std::shared_ptr<MappedLevel> own, const Demand& demand, ThreadPool& pool)
    : level(std::move(own)),
      kv_arena(measure(level->weights, demand).kv_bytes),
      work_arena(measure(level->weights, demand).work_bytes),
      memory(kv_arena, work_arena, level->weights, demand),
      transformer(level->weights, memory.cache, memory.states, memory.workspace, pool) {}

void SessionLevel::take(const SessionLevel& other, int32_t n_tokens) {
    if (n_tokens > 0) {
        memory.states.take(other.memory.states);
        memory.cache.take(other.memory.cache, n_tokens);
    }
    transformer.continue_times(other.transformer);
}

}  // namespace edge
