// A session whose prompts run on the CPU and whose single tokens on a GPU, or the other way round.
#pragma once
#include "gpu_level.h"
#include "session_level.h"

namespace edge::gpu {

// Two sessions at one level that take turns. The one whose turn it is gets first what the other one remembers and it lacks: both
// compute the same to the bit, so it is as if there were one.
class HybridLevel final : public SessionLevel {
public:
    // `demand` and `pool` outlive this. Throws EDGE_OUT_OF_MEMORY.
    HybridLevel(std::shared_ptr<MappedLevel> level, const Demand& demand, ThreadPool& pool);

    std::unique_ptr<SessionLevel> move_to(std::shared_ptr<MappedLevel> next, int32_t n_tokens) override;
    int32_t chunk_tokens() const override { return prefill().chunk_tokens(); }
    bool can_go_back() const override { return here_.can_go_back(); }
    bool can_move() const override { return false; }
    bool forward(const int32_t* tokens, int n, int64_t position, const std::atomic<bool>& cancelled) override;
    void head(int first, int n, float* logits) override { current_->head(first, n, logits); }
    bool last_head(int row, float* logits) override { return current_->last_head(row, logits); }
    void fetch(float* logits) override { current_->fetch(logits); }
    void find_likeliest(std::span<LikelyToken> out) override { current_->find_likeliest(out); }
    void time_ops(bool on) override;
    OpTimes op_times() const override;

private:
    const SessionLevel& prefill() const;
    void hand_over(bool to_device, int64_t n_tokens);

    const Demand& demand_;
    ThreadPool& pool_;
    const Demand host_demand_, device_demand_;
    CpuLevel here_;
    GpuLevel there_;
    SessionLevel* current_ = &here_;
    int64_t n_here_ = 0, n_there_ = 0;  // tokens, from the first on, that each remembers
};

}  // namespace edge::gpu
