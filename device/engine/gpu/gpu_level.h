// A session at one level on a GPU: the forward pass of transformer.cpp with a kernel for each of its steps, one queue, and nothing
// read back but logits or the likeliest tokens.
#pragma once
#include <span>
#include <vector>

#include "device_memory.h"
#include "kernel_times.h"
#include "operations.h"
#include "session_level.h"

namespace edge::gpu {

class GpuLevel final : public SessionLevel {
public:
    // `demand` outlives this. Throws EDGE_OUT_OF_MEMORY.
    GpuLevel(std::shared_ptr<MappedLevel> level, const Demand& demand);

    std::unique_ptr<SessionLevel> move_to(std::shared_ptr<MappedLevel> next, int32_t n_tokens) override;
    int32_t chunk_tokens() const override { return memory_.shape.n; }
    bool can_go_back() const override { return !memory_.shape.has_states; }
    bool can_move() const override { return false; }
    bool forward(const int32_t* tokens, int n, int64_t position, const std::atomic<bool>& cancelled) override;
    void head(int first, int n, float* logits) override;
    bool last_head(int row, float* logits) override;
    void fetch(float* logits) override;
    void find_likeliest(std::span<LikelyToken> out) override;
    void time_ops(bool on) override { times_.keep(on); }
    OpTimes op_times() const override { return times_.sums(); }

    void continue_times(const GpuLevel& other) { times_.go_on(other.times_); }  // of one that this replaces

    const DeviceMemory& memory() const { return memory_; }

private:
    Quantized activations() const;
    AttentionShape shape_of(const Block& block) const;
    void write_angles(int n, int64_t position);
    void multiply_head(int first, int n);
    void attention(size_t index, int n, int64_t position);
    void mlp(size_t index, int n);
    void mixer(size_t index, int n);
    void clear_states();

    const Demand& demand_;
    const Weights& weights_;
    const DeviceWeights& device_;
    DeviceMemory memory_;
    KernelTimes times_;
    Operations ops_;
    Pending pending_;
    std::vector<float> angles_;  // on their way to the device
};

}  // namespace edge::gpu
