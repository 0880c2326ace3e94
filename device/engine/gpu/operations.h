// The kernels of kernels/gpu with their arguments in order: the forward pass and the self-test launch them here and nowhere else.
#pragma once
#include <cstdint>

#include "device.h"
#include "device_weights.h"
#include "kernel_times.h"

namespace edge::gpu {

// Activations of int8 codes and float scales, (n_tokens, stride) and (n_tokens, group_stride).
struct Quantized {
    const Buffer& codes;
    const Buffer& scales;
    int32_t stride, group_stride;
};

// What the block before left in y, and x lacks.
struct Pending {
    bool is_there = false;
    int32_t bias = -1, post_norm = -1;
};

// One attention block, as its kernels need it.
struct AttentionShape {
    int32_t n_heads, n_kv_heads, qk, vo, qk_quantum, vo_quantum;
    int32_t capacity, kv_bits;
    float softmax_scale, softcap;
    int32_t window;
};

class Operations {
public:
    // All outlive this. `times` (may be nullptr): where those of the kernels go while they are kept.
    Operations(Device& device, const Tables& tables, KernelTimes* times = nullptr) : device_(device), tables_(tables), times_(times) {}

    void embed(const Product& table, const Buffer& tokens, int n, float factor, const Buffer& x, int32_t d_model) const;
    // y = product * a, for n tokens.
    void multiply(const Product& product, const Quantized& a, int n, const Buffer& y, int32_t y_stride) const;
    // Of tokens first .. first + n - 1, as the first rows of `to`; y gets the result in floats, too, if it `keeps` it.
    void normalize(const Buffer& x, const Buffer& y, const Pending& pending, int32_t gain, bool keeps, float eps,
                   int32_t d_model, int32_t group, int first, int n, const Quantized& to) const;
    void add_bias(const Buffer& x, const Buffer& y, const Pending& pending, int32_t bias, float eps, int32_t d_model, int n) const;
    // kind: 0 silu, 1 gelu, 2 the square above zero.
    void activate(const Buffer& rows, int32_t row_stride, int32_t gate_bias, int32_t up_bias, int32_t kind, int32_t width,
                  int32_t group, int n, const Quantized& to) const;
    void merge(const Buffer& heads, const AttentionShape& shape, int32_t group, int n, const Quantized& to) const;
    void store(const Buffer& rows, int32_t row_stride, const DeviceBlock& block, const AttentionShape& shape, float eps,
               const Buffer& angles, int32_t n_angles, const Buffer& queries, const Buffer& cache, int32_t position, int n) const;
    // `scores`: only with a float16 cache, for score_tokens tokens.
    void attend(const Buffer& queries, const AttentionShape& shape, const Buffer& cache, int32_t position, const Buffer& out, int n,
                const Buffer& scores, int score_tokens) const;
    // The steps of a mixer, in order: `state` holds what its convolutions remember (x, b, c), then its states.
    void find_steps(const Buffer& y, int32_t d_model, const DeviceBlock& block, const SsmBlock& ssm, int n, const Buffer& steps) const;
    void convolve(const Buffer& rows, int32_t row_stride, const DeviceBlock& block, const SsmBlock& ssm, const Buffer& state, int n,
                  const Buffer& mixed, int32_t mixed_stride) const;
    void scan(const Buffer& mixed, int32_t mixed_stride, const Buffer& steps, const DeviceBlock& block, const SsmBlock& ssm,
              const Buffer& state, int n, const Buffer& out) const;
    void gate(const Buffer& rows, int32_t row_stride, const DeviceBlock& block, const SsmBlock& ssm, int n, const Buffer& y) const;
    void softcap(const Buffer& x, float cap, int32_t n) const;
    // The n_best <= kMostLikely likeliest of n tokens, as DeviceMemory::best holds them. Returns where they are: the byte of the first.
    uint64_t choose(const Buffer& logits, int32_t n, int32_t n_best, const Buffer& best) const;

private:
    void launch(Kernel kernel, int64_t x, int64_t y, std::initializer_list<Argument> arguments) const;

    Device& device_;
    const Tables& tables_;
    KernelTimes* times_;
};

}  // namespace edge::gpu
