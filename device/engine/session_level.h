// A session at one level: what it remembers there, and the forward pass over it. One virtual call per chunk of tokens; the passes
// themselves (CpuLevel, gpu::GpuLevel, gpu::HybridLevel) know what they run on.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "mapped_level.h"
#include "op_times.h"
#include "session_memory.h"
#include "threads.h"
#include "transformer.h"

namespace edge {

class SessionLevel {
public:
    explicit SessionLevel(std::shared_ptr<MappedLevel> own) : level(std::move(own)) {}
    virtual ~SessionLevel() = default;
    SessionLevel(const SessionLevel&) = delete;
    SessionLevel& operator=(const SessionLevel&) = delete;

    // The same session at another level of the model, with n_tokens of what it remembers here; this one is of no use afterwards.
    virtual std::unique_ptr<SessionLevel> move_to(std::shared_ptr<MappedLevel> next, int32_t n_tokens) = 0;

    virtual int32_t chunk_tokens() const = 0;  // that `forward` takes at most
    virtual bool can_go_back() const = 0;      // what is cached can be cut to its first tokens
    virtual bool can_move() const { return true; }  // with what is cached; else it is computed again at the other level

    // See Transformer.
    virtual bool forward(const int32_t* tokens, int n, int64_t position, const std::atomic<bool>& cancelled) = 0;
    virtual void head(int first, int n, float* logits) = 0;

    // Logits of one token of the last chunk. Returns whether they were written to `logits`; else they wait for `fetch`, and until
    // the next chunk `find_likeliest` gives up to kMostLikely of the likeliest tokens, likeliest first.
    virtual bool last_head(int row, float* logits) {
        head(row, 1, logits);
        return true;
    }
    virtual void fetch(float*) {}
    virtual void find_likeliest(std::span<LikelyToken>) {}

    virtual void time_ops(bool on) = 0;
    virtual OpTimes op_times() const = 0;

    const std::shared_ptr<MappedLevel> level;
};

class CpuLevel final : public SessionLevel {
public:
    CpuLevel(std::shared_ptr<MappedLevel> level, const Demand& demand, ThreadPool& pool);

    std::unique_ptr<SessionLevel> move_to(std::shared_ptr<MappedLevel> next, int32_t n_tokens) override;
    int32_t chunk_tokens() const override { return memory.workspace.n; }
    bool can_go_back() const override { return memory.states.empty(); }
    bool forward(const int32_t* tokens, int n, int64_t position, const std::atomic<bool>& cancelled) override {
        return transformer.forward(tokens, n, position, cancelled);
    }
    void head(int first, int n, float* logits) override { transformer.head(first, n, logits); }
    void time_ops(bool on) override { transformer.time_ops(on); }
    OpTimes op_times() const override { return transformer.op_times(); }

    // Computes with other threads from now on.
    void use(ThreadPool& pool);

    Arena kv_arena, work_arena;
    LevelMemory memory;
    Transformer transformer;

private:
    const Demand& demand_;
    ThreadPool* pool_;
};

// For what the model runs on.
std::unique_ptr<SessionLevel> open_level(std::shared_ptr<MappedLevel> level, const Demand& demand, ThreadPool& pool);

}  // namespace edge
