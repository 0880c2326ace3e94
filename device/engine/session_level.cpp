#include "session_level.h"

#include <utility>

#include "gpu/gpu_level.h"
#include "gpu/hybrid_level.h"

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

CpuLevel::CpuLevel(std::shared_ptr<MappedLevel> own, const Demand& demand, ThreadPool& pool)
    : SessionLevel(std::move(own)),
      kv_arena(measure(level->weights, demand).kv_bytes),
      work_arena(measure(level->weights, demand).work_bytes),
      memory(kv_arena, work_arena, level->weights, demand),
      transformer(level->weights, memory.cache, memory.states, memory.workspace, pool),
      demand_(demand),
      pool_(&pool) {}

std::unique_ptr<SessionLevel> CpuLevel::move_to(std::shared_ptr<MappedLevel> next, int32_t n_tokens) {
    auto moved = std::make_unique<CpuLevel>(std::move(next), demand_, *pool_);
    if (n_tokens > 0) {
        moved->memory.states.take(memory.states);
        moved->memory.cache.take(memory.cache, n_tokens);
    }
    moved->transformer.continue_times(transformer);
    return moved;
}

void CpuLevel::use(ThreadPool& pool) {
    pool_ = &pool;
    transformer.use(pool);
}

std::unique_ptr<SessionLevel> open_level(std::shared_ptr<MappedLevel> level, const Demand& demand, ThreadPool& pool) {
    if (demand.on_device() && demand.on_host()) return std::make_unique<gpu::HybridLevel>(std::move(level), demand, pool);
    if (demand.on_device()) return std::make_unique<gpu::GpuLevel>(std::move(level), demand);
    return std::make_unique<CpuLevel>(std::move(level), demand, pool);
}

}  // namespace edge
