#include "device_memory.h"

#include <algorithm>

#include "bytes.h"
#include "kernels/ops.h"

namespace edge::gpu {
namespace {

constexpr int32_t kChunkTokens = 128;

// The sizes of the buffers behind the caches, in the order of DeviceMemory.
std::vector<uint64_t> row_sizes(const MemoryShape& shape, int64_t n_angles) {
    const auto rows = [&](int64_t length, uint64_t bytes = 4) {
        return multiply_bytes(static_cast<uint64_t>(shape.n), static_cast<uint64_t>(length) * bytes);
    };
    const bool keeps_scores = shape.kv_bits == 16;
    return {rows(1),
            rows(n_angles * 2),
            rows(shape.d_model),
            rows(shape.d_model),
            rows(shape.wide),
            rows(shape.queries),
            rows(shape.heads),
            rows(shape.mixed),
            rows(shape.steps),
            rows(shape.stride, 1),
            rows(shape.group_stride),
            keeps_scores ? static_cast<uint64_t>(shape.n_heads * shape.capacity) * kScoreTokens * 4 : 0,
            static_cast<uint64_t>(shape.vocab_size) * std::min(kLogitRows, shape.n) * 4,
            (kChoices + 1) * kMostLikely * sizeof(LikelyToken)};
}

}  // namespace

MemoryShape::MemoryShape(const Weights& weights, const Demand& demand)
    : n(std::min(demand.chunk_tokens ? demand.chunk_tokens : kChunkTokens, demand.context_tokens)),
      capacity((demand.context_tokens + kKeyBlock - 1) / kKeyBlock * kKeyBlock),
      kv_bits(demand.kv_bits),
      d_model(weights.d_model),
      vocab_size(weights.vocab_size) {
    int64_t columns = weights.d_model, groups = 0;
    const auto reads = [&](const Weight& weight) {
        columns = std::max<int64_t>(columns, weight.columns);
        groups = std::max<int64_t>(groups, (weight.columns + weight.group - 1) / weight.group);
    };
    reads(weights.head);
    for (const Block& block : weights.blocks) {
        if (block.dropped) continue;
        if (block.kind == BlockKind::attention) {
            const int64_t q = int64_t{block.n_heads} * block.qk, kv = int64_t{block.n_kv_heads} * (block.qk + block.vo);
            wide = std::max(wide, q + kv);
            queries = std::max(queries, q);
            heads = std::max(heads, int64_t{block.n_heads} * block.vo);
            n_heads = std::max<int64_t>(n_heads, block.n_heads);
            reads(block.q);
            reads(block.o);
        } else if (block.kind == BlockKind::ssm) {
            const SsmBlock& ssm = block.ssm;
            wide = std::max(wide, 2 * (ssm.rows() + ssm.states()));
            heads = std::max(heads, ssm.rows());
            mixed = std::max(mixed, ssm.rows() + 2 * ssm.states());
            steps = std::max(steps, int64_t{2} * ssm.n_heads);
            has_states = true;
            reads(ssm.z);
            reads(ssm.out);
        } else {
            wide = std::max(wide, int64_t{block.width} * (block.gated ? 2 : 1));
            reads(block.up);
            reads(block.down);
        }
    }
    stride = (columns + 63) / 64 * 64;
    group_stride = (groups + 15) / 16 * 16;
}

uint64_t MemoryShape::cache_bytes(const Block& block) const {
    if (block.dropped || block.kind == BlockKind::mlp) return 0;
    if (block.kind == BlockKind::ssm) {
        const SsmBlock& ssm = block.ssm;
        const int64_t past = (ssm.conv_kernel - 1) * (ssm.rows() + 2 * ssm.states());
        return static_cast<uint64_t>(past + int64_t{ssm.n_heads} * ssm.state * ssm.head) * sizeof(float);
    }
    const int64_t head = kv_bits == 16 ? 2 * (block.qk + block.vo) : block.qk + padded_values(block.vo) + 4;
    return multiply_bytes(static_cast<uint64_t>(capacity), static_cast<uint64_t>(block.n_kv_heads * head));
}

DeviceMemory::DeviceMemory(Device& device, const Weights& weights, const MemoryShape& own, int64_t n_angles) : shape(own) {
    caches.reserve(weights.blocks.size());
    for (const Block& block : weights.blocks) {
        const uint64_t n_bytes = shape.cache_bytes(block);
        caches.push_back(n_bytes > 0 ? Buffer(device, n_bytes) : Buffer());
    }
    const std::vector<uint64_t> sizes = row_sizes(shape, n_angles);
    size_t i = 0;
    for (Buffer* buffer : {&tokens, &angles, &x, &y, &rows, &queries, &heads, &mixed, &steps, &codes,
                           &scales, &scores, &logits, &best}) {
        *buffer = Buffer(device, sizes[i++]);
    }
}

// Of angles as many as the longest head has pairs: heads of one model turn at the same frequencies.
MemoryBytes memory_bytes(const Artifact& artifact, const Weights& weights, const Demand& demand) {
    const MemoryShape shape(weights, demand);
    MemoryBytes bytes{0, 0, 0};
    const auto add = [&bytes](uint64_t& sum, uint64_t n_bytes) {
        const uint64_t own = buffer_bytes(n_bytes);
        sum = add_bytes(sum, own);
        bytes.largest = std::max(bytes.largest, own);
    };
    int64_t n_angles = 0;
    for (const Block& block : weights.blocks) {
        if (const uint64_t cache = shape.cache_bytes(block); cache > 0) add(bytes.cache, cache);
    }
    for (const BlockSpec& block : artifact.model.blocks) {
        if (block.kind == BlockKind::attention) n_angles = std::max<int64_t>(n_angles, block.axes[0].size / 2);
    }
    for (const uint64_t size : row_sizes(shape, n_angles)) add(bytes.rows, size);
    return bytes;
}

}  // namespace edge::gpu
