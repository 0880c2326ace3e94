// The mixer of Mamba-2 (formats/SPEC.md section 9; Dao and Gu 2024, arXiv 2405.21060).
//
// A prefill runs the recurrence itself, with four states of 16 channels in registers while the tokens of a chunk pass: about
// as many operations as the matrix form of the paper takes, and the bits of as many single steps.
#include <algorithm>

#include "transformer.h"

namespace edge {
namespace {

constexpr int kStepHeads = 16;    // of dt, that a thread takes at least
constexpr int64_t kRunTokens = 64;  // likewise runs of the convolution, times tokens
constexpr int64_t kRows = 4;      // likewise of work on single rows

}  // namespace

// From the normed residual, in y and quantized, to the mixer's output in y.
void Transformer::ssm(const Block& block, int index, int n) {
    const SsmBlock& ssm = block.ssm;
    const StateCache::Mixer& memory = states_.of(index);
    const Workspace::Mixer& mixer = work_.mixer;
    const int64_t wide = work_.wide;
    step_sizes(ssm, n);
    multiply(Op::ssm_in, {{&ssm.z, work_.wide1, wide},
                          {&ssm.x, work_.wide2, wide},
                          {&ssm.b, mixer.projected[0], mixer.states},
                          {&ssm.c, mixer.projected[1], mixer.states}}, n);
    float* const projected[] = {work_.wide1, work_.wide2, mixer.projected[0], mixer.projected[1]};
    for (int i = 0; i < 4; ++i) {
        if (!block.row_bias[i]) continue;
        const int64_t stride = i < 2 ? wide : mixer.states, rows = i < 2 ? ssm.rows() : ssm.states();
        for (int64_t t = 0; t < n; ++t) {
            for (int64_t r = 0; r < rows; ++r) projected[i][t * stride + r] += block.row_bias[i][r];
        }
    }
    scan(ssm, memory, n);
    multiply(Op::ssm_out, {{&ssm.out, work_.y, weights_.d_model}}, n);
}

// From the projections to the activations that the last product reads.
void Transformer::scan(const SsmBlock& ssm, const StateCache::Mixer& memory, int n) {
    const OpTimer timer(timing_, Op::ssm_scan, int64_t{ssm.n_heads} * ssm.state * ssm.head * static_cast<int64_t>(sizeof(float)));
    const Workspace::Mixer& mixer = work_.mixer;
    const int64_t wide = work_.wide;
    convolve(ssm, memory, n);
    const auto move_gate = [&](int64_t t, int) {  // z, head-major
        ops().rope({work_.wide1 + t * wide, nullptr, nullptr, work_.wide2 + t * wide,
                    int64_t{ssm.n_heads} * ssm.head_quantum, ssm.n_heads, ssm.head, ssm.head_quantum});
    };
    pool_->each(n, move_gate, kRows);
    const int32_t group_heads = ssm.n_heads / ssm.n_groups;
    pool_->each(ssm.n_heads, [&](int64_t h, int) {
        const int64_t group = h / group_heads * ssm.state;
        ops().ssm_scan({mixer.x + h * ssm.head, mixer.state_rows[0] + group, mixer.state_rows[1] + group, mixer.step + h,
                        mixer.decay + h, memory.state + h * ssm.state * ssm.head, work_.wide1 + h * ssm.head, mixer.wide,
                        mixer.states, mixer.heads, wide, ssm.d[h], n, ssm.state, ssm.head});
    });
    shape_activations(ssm.out.columns, ssm.out.group);
    const auto finish = [&](int64_t t, int) {
        float* y = work_.wide1 + t * wide;
        float* gated = work_.wide2 + t * wide;
        const int64_t width = ssm.rows() / ssm.norm_groups;
        ops().silu_mul(gated, y, ssm.rows());
        for (int64_t at = 0; at < ssm.rows(); at += width) {
            ops().rms_norm(gated + at, ssm.gain + at, ssm.norm_eps, static_cast<int>(width), gated + at);
        }
        ops().merge_heads(gated, ssm.n_heads, ssm.head, ssm.head_quantum, y);
        quantize(y, t);
    };
    pool_->each(n, finish, kRows);
}

// dt of each token and head, and what it leaves of the state.
void Transformer::step_sizes(const SsmBlock& ssm, int n) {
    const int d_model = weights_.d_model;
    const Workspace::Mixer& mixer = work_.mixer;
    const int n_parts = (ssm.n_heads + kStepHeads - 1) / kStepHeads;
    const auto part = [&](int64_t item, int) {
        const int64_t t = item / n_parts;
        const int first = static_cast<int>(item % n_parts) * kStepHeads, count = std::min(kStepHeads, ssm.n_heads - first);
        float* step = mixer.step + t * mixer.heads + first;
        ops().dot_f16(ssm.dt + int64_t{first} * d_model, work_.y + t * d_model, count, d_model, step);
        ops().ssm_step(step, ssm.dt_bias + first, ssm.a + first, ssm.step_least, ssm.step_most, count,
                       mixer.decay + t * mixer.heads + first);
    };
    pool_->each(int64_t{n} * n_parts, part, kRows);
}

// x, b and c through their convolutions, head-major and group-major.
void Transformer::convolve(const SsmBlock& ssm, const StateCache::Mixer& memory, int n) {
    const Workspace::Mixer& mixer = work_.mixer;
    const int64_t wide = work_.wide;
    ConvArgs parts[3] = {
        {work_.wide2, ssm.conv[0], memory.past[0], mixer.x, wide, mixer.wide, n, ssm.conv_kernel, ssm.n_heads, ssm.head,
         ssm.head_quantum, 0, 0},
        {mixer.projected[0], ssm.conv[1], memory.past[1], mixer.state_rows[0], mixer.states, mixer.states, n, ssm.conv_kernel,
         ssm.n_groups, ssm.state, ssm.state_quantum, 0, 0},
        {mixer.projected[1], ssm.conv[2], memory.past[2], mixer.state_rows[1], mixer.states, mixer.states, n, ssm.conv_kernel,
         ssm.n_groups, ssm.state, ssm.state_quantum, 0, 0}};
    int64_t n_runs = 0;
    for (const ConvArgs& part : parts) n_runs += int64_t{part.n_heads} * part.dims / part.quantum;
    pool_->share(n_runs, std::max<int64_t>(1, kRunTokens / n), [&](int64_t low, int64_t high, int) {
        int64_t begin = 0;
        for (ConvArgs own : parts) {
            const int64_t count = int64_t{own.n_heads} * own.dims / own.quantum;
            own.begin = static_cast<int32_t>(std::clamp<int64_t>(low - begin, 0, count));
            own.end = static_cast<int32_t>(std::clamp<int64_t>(high - begin, 0, count));
            if (own.begin < own.end) ops().conv_silu(own);
            begin += count;
        }
    });
}

}  // namespace edge
