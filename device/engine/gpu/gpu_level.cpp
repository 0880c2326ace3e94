#include "gpu_level.h"

#include <algorithm>
#include <utility>

#include "rope_angles.h"

namespace edge::gpu {
namespace {

int32_t narrow(int64_t n) { return static_cast<int32_t>(n); }

// Of n_tokens, codes and scales of all heads.
int64_t cache_read_bytes(const Block& block, int32_t kv_bits, int64_t n_tokens) {
    return n_tokens * block.n_kv_heads * ((block.qk + block.vo) * kv_bits / 8 + (kv_bits == 8 ? 4 : 0));
}

}  // namespace

GpuLevel::GpuLevel(std::shared_ptr<MappedLevel> own, const Demand& demand)
    : SessionLevel(std::move(own)),
      demand_(demand),
      weights_(level->weights),
      device_(*level->on_device),
      memory_(*device_.device, weights_, MemoryShape(weights_, demand), narrow(device_.frequencies.size())),
      ops_(*device_.device, device_.tables, &times_) {}

// Nothing is taken along (can_move).
std::unique_ptr<SessionLevel> GpuLevel::move_to(std::shared_ptr<MappedLevel> next, int32_t) {
    auto moved = std::make_unique<GpuLevel>(std::move(next), demand_);
    moved->continue_times(*this);
    return moved;
}

Quantized GpuLevel::activations() const {
    return {memory_.codes, memory_.scales, narrow(memory_.shape.stride), narrow(memory_.shape.group_stride)};
}

AttentionShape GpuLevel::shape_of(const Block& block) const {
    return {block.n_heads, block.n_kv_heads, block.qk, block.vo, block.qk_quantum, block.vo_quantum, memory_.shape.capacity,
            memory_.shape.kv_bits, block.softmax_scale, block.softcap, block.window};
}

// Cosines and sines of this chunk's positions. They are made here, because phones have no binary64 and what it takes is little: a
// model turns all its heads at the same few frequencies.
void GpuLevel::write_angles(int n, int64_t position) {
    const size_t n_angles = device_.frequencies.size();
    if (n_angles == 0) return;
    std::vector<float> cosine(n_angles), sine(n_angles);
    angles_.resize(static_cast<size_t>(n) * n_angles * 2);
    for (int t = 0; t < n; ++t) {
        rope_angles(device_.frequencies.data(), narrow(n_angles), position + t, cosine.data(), sine.data());
        float* row = angles_.data() + static_cast<size_t>(t) * n_angles * 2;
        for (size_t i = 0; i < n_angles; ++i) row[2 * i] = cosine[i], row[2 * i + 1] = sine[i];
    }
    memory_.angles.write(0, angles_.data(), angles_.size() * sizeof(float));
}

bool GpuLevel::forward(const int32_t* tokens, int n, int64_t position, const std::atomic<bool>& cancelled) {
    const int32_t d_model = weights_.d_model;
    memory_.tokens.write(0, tokens, static_cast<uint64_t>(n) * sizeof(int32_t));
    write_angles(n, position);
    times_.begin(Op::embed);
    ops_.embed(device_.embed, memory_.tokens, n, weights_.embedding_scale, memory_.x, d_model);
    pending_ = {};
    if (position == 0) clear_states();
    for (size_t b = 0; b < weights_.blocks.size(); ++b) {
        const Block& block = weights_.blocks[b];
        const DeviceBlock& own = device_.blocks[b];
        if (cancelled.load(std::memory_order_relaxed)) return false;
        if (block.dropped) {
            if (own.bias < 0) continue;
            times_.begin(Op::norm);
            ops_.add_bias(memory_.x, memory_.y, pending_, own.bias, weights_.norm_eps, d_model, n);
            pending_ = {};
            continue;
        }
        const bool is_mixer = block.kind == BlockKind::ssm;
        times_.begin(Op::norm);
        ops_.normalize(memory_.x, memory_.y, pending_, own.norm, is_mixer, weights_.norm_eps, d_model, own.in.group, 0, n, activations());
        if (is_mixer) {
            mixer(b, n);
        } else {
            block.kind == BlockKind::attention ? attention(b, n, position) : mlp(b, n);
        }
        pending_ = {true, own.bias, own.post_norm};
    }
    return true;
}

void GpuLevel::attention(size_t index, int n, int64_t position) {
    const Block& block = weights_.blocks[index];
    const DeviceBlock& own = device_.blocks[index];
    const AttentionShape shape = shape_of(block);
    const Buffer& cache = memory_.caches[index];
    const int32_t wide = narrow(memory_.shape.wide), at = narrow(position);
    times_.begin(Op::qkv, block.q.bytes + block.k.bytes + block.v.bytes);
    ops_.multiply(own.in, activations(), n, memory_.rows, wide);
    times_.begin(Op::store);
    ops_.store(memory_.rows, wide, own, shape, weights_.norm_eps, memory_.angles, narrow(device_.frequencies.size()), memory_.queries,
               cache, at, n);
    times_.begin(Op::attention, cache_read_bytes(block, shape.kv_bits, position + n));
    ops_.attend(memory_.queries, shape, cache, at, memory_.heads, n, memory_.scores, kScoreTokens);
    times_.begin(Op::merge);
    ops_.merge(memory_.heads, shape, own.out.group, n, activations());
    times_.begin(Op::o, block.o.bytes);
    ops_.multiply(own.out, activations(), n, memory_.y, weights_.d_model);
}

void GpuLevel::mlp(size_t index, int n) {
    const Block& block = weights_.blocks[index];
    const DeviceBlock& own = device_.blocks[index];
    const int32_t wide = narrow(memory_.shape.wide);
    const int32_t kind = !block.gated ? 2 : block.activation == Activation::silu ? 0 : 1;
    times_.begin(Op::gate_up, block.gate.bytes + block.up.bytes);
    ops_.multiply(own.in, activations(), n, memory_.rows, wide);
    times_.begin(Op::activate);
    ops_.activate(memory_.rows, wide, own.row_bias[0], own.row_bias[1], kind, block.width, own.out.group, n, activations());
    times_.begin(Op::down, block.down.bytes);
    ops_.multiply(own.out, activations(), n, memory_.y, weights_.d_model);
}

void GpuLevel::mixer(size_t index, int n) {
    const SsmBlock& ssm = weights_.blocks[index].ssm;
    const DeviceBlock& own = device_.blocks[index];
    const Buffer& state = memory_.caches[index];
    const int32_t wide = narrow(memory_.shape.wide), mixed = narrow(memory_.shape.mixed);
    times_.begin(Op::ssm_in, ssm.z.bytes + ssm.x.bytes + ssm.b.bytes + ssm.c.bytes);
    ops_.multiply(own.in, activations(), n, memory_.rows, wide);
    times_.begin(Op::ssm_scan, int64_t{ssm.n_heads} * ssm.state * ssm.head * static_cast<int64_t>(sizeof(float)));
    ops_.find_steps(memory_.y, weights_.d_model, own, ssm, n, memory_.steps);
    ops_.convolve(memory_.rows, wide, own, ssm, state, n, memory_.mixed, mixed);
    ops_.scan(memory_.mixed, mixed, memory_.steps, own, ssm, state, n, memory_.heads);
    ops_.gate(memory_.rows, wide, own, ssm, n, memory_.heads);
    AttentionShape heads{};
    heads.n_heads = ssm.n_heads;
    heads.vo = ssm.head;
    heads.vo_quantum = ssm.head_quantum;
    ops_.merge(memory_.heads, heads, own.out.group, n, activations());
    times_.begin(Op::ssm_out, ssm.out.bytes);
    ops_.multiply(own.out, activations(), n, memory_.y, weights_.d_model);
}

// As before the first token.
void GpuLevel::clear_states() {
    for (size_t b = 0; b < weights_.blocks.size(); ++b) {
        const Block& block = weights_.blocks[b];
        if (block.kind != BlockKind::ssm || block.dropped) continue;
        const std::vector<char> zeros(memory_.caches[b].n_bytes());
        memory_.caches[b].write(0, zeros.data(), zeros.size());
    }
}

// Of n <= kLogitRows tokens, to the first rows of the device's logits.
void GpuLevel::multiply_head(int first, int n) {
    const int32_t vocab_size = weights_.vocab_size;
    times_.begin(Op::norm);
    ops_.normalize(memory_.x, memory_.y, pending_, device_.norm, false, weights_.norm_eps, weights_.d_model, device_.head.group, first, n,
                   activations());
    times_.begin(Op::head, weights_.head.bytes);
    ops_.multiply(device_.head, activations(), n, memory_.logits, vocab_size);
    if (weights_.logit_softcap != 0) ops_.softcap(memory_.logits, weights_.logit_softcap, n * vocab_size);
}

void GpuLevel::head(int first, int n, float* logits) {
    const auto vocab_size = static_cast<size_t>(weights_.vocab_size);
    const int step = std::min(kLogitRows, memory_.shape.n);
    for (int done = 0; done < n; done += step) {
        const int rows = std::min(step, n - done);
        multiply_head(first + done, rows);
        memory_.logits.read(0, logits + static_cast<size_t>(done) * vocab_size, static_cast<size_t>(rows) * vocab_size * sizeof(float));
    }
}

bool GpuLevel::last_head(int row, float*) {
    multiply_head(row, 1);
    return false;
}

void GpuLevel::fetch(float* logits) {
    memory_.logits.read(0, logits, static_cast<uint64_t>(weights_.vocab_size) * sizeof(float));
}

void GpuLevel::find_likeliest(std::span<LikelyToken> out) {
    const uint64_t at = ops_.choose(memory_.logits, weights_.vocab_size, narrow(static_cast<int64_t>(out.size())), memory_.best);
    memory_.best.read(at, out.data(), out.size_bytes());
}

}  // namespace edge::gpu
