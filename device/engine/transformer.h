// The forward pass: blocks of attention, MLP and Mamba-2 mixers around a residual.
#pragma once
#include <atomic>
#include <cstdint>
#include <initializer_list>

#include "kv_cache.h"
#include "op_times.h"
#include "state_cache.h"
#include "threads.h"
#include "weights.h"
#include "workspace.h"

namespace edge {

// Borrows everything; one session owns it all. Each result is defined to the bit by kernels/ops.h: it depends neither on
// the number of threads nor on how tokens are cut into calls.
class Transformer {
public:
    Transformer(const Weights& weights, const KvCache& cache, const StateCache& states, Workspace& workspace, ThreadPool& pool)
        : weights_(weights), cache_(cache), states_(states), work_(workspace), pool_(&pool) {}

    // Pushes n <= workspace.n tokens through all blocks, as positions position .. position + n - 1, and stores their keys
    // and values; mixers must have seen the tokens before them, once each. Returns false, leaving nothing usable behind, when `cancelled` became true.
    bool forward(const int32_t* tokens, int n, int64_t position, const std::atomic<bool>& cancelled);

    // Logits of tokens first .. first + n - 1 of the last chunk: (n, vocab_size). Call it once per chunk.
    void head(int first, int n, float* logits);

    // Sums of the time per kind of operation since the last call with `on`; none are kept at first.
    void time_ops(bool on);
    const OpTimes& op_times() const { return times_; }

    // Computes with other threads from now on.
    void use(ThreadPool& pool) { pool_ = &pool; }

    // Goes on with the sums of a transformer that this one replaces.
    void continue_times(const Transformer& other) {
        times_ = other.times_;
        timing_ = other.timing_ ? &times_ : nullptr;
    }

private:
    struct Product {  // weight times the quantized activations
        const Weight* weight;
        float* y;
        int64_t y_stride;
    };
    void normalize(const float* gain, int group, int first, int n);
    void add_output(int64_t token);
    void add_bias(const float* bias, int n);
    void shape_activations(int columns, int group);
    void quantize(const float* x, int64_t token);
    void multiply(Op op, std::initializer_list<Product> products, int n);
    void multiply_part(const Product& product, int n, int64_t low, int64_t high);
    void attention(const Block& block, int index, int n, int64_t position);
    void attend_one(const Block& block, int index, int64_t position);
    void attend_all(const Block& block, int index, int n, int64_t position);
    void norm_heads(float* x, const float* gain, int n_heads, int size);
    void turn_and_store(const Block& block, int index, int head, int token, int64_t position, float* queries, int thread);
    void attend(const Block& block, int index, int head, int n, int64_t position, const float* queries, float* out, int thread);
    void merge(const Block& block, const float* heads, float* rows, int n);
    void mlp(const Block& block, int n);
    void ungated_mlp(const Block& block, int n);
    void ssm(const Block& block, int index, int n);  // these four: transformer_ssm.cpp
    void scan(const SsmBlock& ssm, const StateCache::Mixer& memory, int n);
    void step_sizes(const SsmBlock& ssm, int n);
    void convolve(const SsmBlock& ssm, const StateCache::Mixer& memory, int n);

    const Weights& weights_;
    const KvCache& cache_;
    const StateCache& states_;
    Workspace& work_;
    ThreadPool* pool_;
    bool has_output_ = false;             // y holds a block's output that x lacks
    const float* output_bias_ = nullptr;  // and this is to be added with it
    const float* output_norm_ = nullptr;  // the gain of a norm of both, or nullptr
    OpTimes times_;
    OpTimes* timing_ = nullptr;  // &times_ while they are kept
};

}  // namespace edge
