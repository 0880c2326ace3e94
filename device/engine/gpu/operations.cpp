#include "operations.h"

#include <algorithm>

#include "device_memory.h"

namespace edge::gpu {
namespace {

constexpr int kFewTokens = 2;       // up to here the kernel for few tokens is used
constexpr int64_t kBlockTokens = 16;  // SLOTS * STEP_TOKENS of kernels/gpu/weights.cl

// Work groups of kGroup groups of columns.
int64_t group_blocks(int32_t columns, int32_t group) { return ((columns + group - 1) / group + kGroup - 1) / kGroup; }

}  // namespace

void Operations::launch(Kernel kernel, int64_t x, int64_t y, std::initializer_list<Argument> arguments) const {
    if (times_ && times_->are_kept()) {
        times_->add(device_.launch_timed(kernel, x, y, arguments));
    } else {
        device_.launch(kernel, x, y, arguments);
    }
}

void Operations::embed(const Product& table, const Buffer& tokens, int n, float factor, const Buffer& x, int32_t d_model) const {
    launch(Kernel::embed, n, 1,
                   {*table.weights, tables_.tiles, tables_.books, table.first_tile, table.group, tokens, factor, x, d_model});
}

void Operations::multiply(const Product& product, const Quantized& a, int n, const Buffer& y, int32_t y_stride) const {
    if (n <= kFewTokens) {
        launch(Kernel::matvec, product.n_tiles, n,
                       {*product.weights, tables_.tiles, tables_.books, product.first_tile, product.n_pieces, product.group, a.codes, a.scales,
                        a.stride, a.group_stride, y, y_stride});
        return;
    }
    launch(Kernel::matmul, product.n_tiles, (n + kBlockTokens - 1) / kBlockTokens,
                   {*product.weights, tables_.tiles, tables_.books, product.first_tile, product.n_pieces, product.group, a.codes, a.scales,
                    a.stride, a.group_stride, n, y, y_stride});
}

void Operations::normalize(const Buffer& x, const Buffer& y, const Pending& pending, int32_t gain, bool keeps, float eps,
                           int32_t d_model, int32_t group, int first, int n, const Quantized& to) const {
    launch(Kernel::normalize, n, 1,
                   {x, y, tables_.vectors, int32_t{pending.is_there}, pending.bias, pending.post_norm, gain, int32_t{keeps}, eps, d_model,
                    group, first,
                    to.codes, to.scales, to.stride, to.group_stride});
}

void Operations::add_bias(const Buffer& x, const Buffer& y, const Pending& pending, int32_t bias, float eps, int32_t d_model,
                          int n) const {
    launch(Kernel::add_bias, n, 1,
                   {x, y, tables_.vectors, int32_t{pending.is_there}, pending.bias, pending.post_norm, bias, eps, d_model});
}

void Operations::activate(const Buffer& rows, int32_t row_stride, int32_t gate_bias, int32_t up_bias, int32_t kind, int32_t width,
                          int32_t group, int n, const Quantized& to) const {
    launch(Kernel::activate, group_blocks(width, group), n,
                   {rows, row_stride, tables_.vectors, gate_bias, up_bias, kind, width, group, to.codes, to.scales, to.stride,
                    to.group_stride});
}

void Operations::merge(const Buffer& heads, const AttentionShape& shape, int32_t group, int n, const Quantized& to) const {
    launch(Kernel::merge, group_blocks(shape.n_heads * shape.vo, group), n,
                   {heads, shape.n_heads, shape.vo, shape.vo_quantum, group, to.codes, to.scales, to.stride, to.group_stride});
}

void Operations::store(const Buffer& rows, int32_t row_stride, const DeviceBlock& block, const AttentionShape& shape, float eps,
                       const Buffer& angles, int32_t n_angles, const Buffer& queries, const Buffer& cache, int32_t position,
                       int n) const {
    launch(Kernel::store, shape.n_heads + 2 * shape.n_kv_heads, n,
                   {rows, row_stride, tables_.vectors, block.row_bias[0], block.row_bias[1], block.q_norm, block.k_norm, eps, shape.n_heads,
                    shape.n_kv_heads, shape.qk, shape.vo, shape.qk_quantum, shape.vo_quantum, angles, n_angles, tables_.places,
                    block.first_place, queries, cache, shape.capacity, position, shape.kv_bits});
}

void Operations::attend(const Buffer& queries, const AttentionShape& shape, const Buffer& cache, int32_t position, const Buffer& out,
                        int n, const Buffer& scores, int score_tokens) const {
    if (shape.kv_bits == 8) {
        launch(Kernel::attention_q8, shape.n_heads, n,
                       {queries, shape.n_heads, shape.n_kv_heads, shape.qk, shape.vo, cache, shape.capacity, position,
                        shape.softmax_scale, shape.window, shape.softcap, out});
        return;
    }
    for (int first = 0; first < n; first += score_tokens) {
        launch(Kernel::attention_f16, shape.n_heads, std::min(score_tokens, n - first),
                       {queries, shape.n_heads, shape.n_kv_heads, shape.qk, shape.vo, cache, shape.capacity, position,
                        shape.softmax_scale, shape.window, shape.softcap, out, int32_t{first}, scores});
    }
}

void Operations::find_steps(const Buffer& y, int32_t d_model, const DeviceBlock& block, const SsmBlock& ssm, int n,
                            const Buffer& steps) const {
    constexpr int kHeads = kGroup / 16;  // of a work group
    launch(Kernel::steps, (ssm.n_heads + kHeads - 1) / kHeads, n,
                   {y, d_model, tables_.vectors, block.dt, block.dt_bias, block.a, ssm.n_heads, ssm.step_least, ssm.step_most, steps});
}

void Operations::convolve(const Buffer& rows, int32_t row_stride, const DeviceBlock& block, const SsmBlock& ssm, const Buffer& state,
                          int n, const Buffer& mixed, int32_t mixed_stride) const {
    const auto n_x = static_cast<int32_t>(ssm.rows()), n_states = static_cast<int32_t>(ssm.states());
    const int32_t sizes[] = {n_x, n_states, n_states};
    int32_t from = n_x, past = 0, to = 0;
    for (int i = 0; i < 3; ++i) {
        const bool is_x = i == 0;
        launch(Kernel::conv, (sizes[i] + kGroup - 1) / kGroup, 1,
                       {rows, row_stride, from, tables_.vectors, block.row_bias[i + 1], block.conv[i], ssm.conv_kernel, sizes[i],
                        is_x ? ssm.n_heads : ssm.n_groups, is_x ? ssm.head : ssm.state, is_x ? ssm.head_quantum : ssm.state_quantum,
                        state, past, int32_t{n}, mixed, mixed_stride, to});
        from += sizes[i];
        to += sizes[i];
        past += (ssm.conv_kernel - 1) * sizes[i];
    }
}

void Operations::scan(const Buffer& mixed, int32_t mixed_stride, const Buffer& steps, const DeviceBlock& block, const SsmBlock& ssm,
                      const Buffer& state, int n, const Buffer& out) const {
    const auto first_state = static_cast<int32_t>((ssm.conv_kernel - 1) * (ssm.rows() + 2 * ssm.states()));
    launch(Kernel::scan, ssm.n_heads, 1,
                   {mixed, mixed_stride, steps, tables_.vectors, block.d, ssm.n_heads, ssm.n_groups, ssm.state, ssm.head, state,
                    first_state,
                    int32_t{n}, out});
}

void Operations::gate(const Buffer& rows, int32_t row_stride, const DeviceBlock& block, const SsmBlock& ssm, int n,
                      const Buffer& y) const {
    launch(Kernel::gate, ssm.norm_groups, n,
                   {rows, row_stride, tables_.vectors, block.row_bias[0], block.gain, ssm.norm_eps, ssm.n_heads, ssm.head,
                    ssm.head_quantum, static_cast<int32_t>(ssm.rows() / ssm.norm_groups), y});
}

void Operations::softcap(const Buffer& x, float cap, int32_t n) const {
    launch(Kernel::softcap_rows, (n + kGroup - 1) / kGroup, 1, {x, cap, n});
}

uint64_t Operations::choose(const Buffer& logits, int32_t n, int32_t n_best, const Buffer& best) const {
    launch(Kernel::choose, kChoices, 1, {logits, n, n_best, best});
    launch(Kernel::choose_last, 1, 1, {best, n_best});
    return static_cast<uint64_t>(kChoices) * static_cast<uint64_t>(n_best) * sizeof(LikelyToken);
}

}  // namespace edge::gpu
