#include "kv_cache.h"

#include "bytes.h"
#include "kernels/registry.h"

namespace edge {

KvCache::KvCache(Arena& arena, const Weights& weights, int32_t n_tokens, int32_t bits)
    : n_tokens_(n_tokens), bits_(bits), keys_(weights.blocks.size()), values_(weights.blocks.size()) {
    for (size_t b = 0; b < weights.blocks.size(); ++b) {
        const Block& block = weights.blocks[b];
        if (block.kind != BlockKind::attention || block.dropped) continue;
        keys_[b] = take(arena, block.n_kv_heads, block.qk);
        values_[b] = take(arena, block.n_kv_heads, block.vo);
    }
}

KvCache::Plane KvCache::take(Arena& arena, int32_t n_heads, int32_t dims) const {
    Plane plane;
    plane.dims = dims;
    const uint64_t n_tokens = static_cast<uint64_t>(n_tokens_);
    const uint64_t row_bytes = static_cast<uint64_t>(dims) * static_cast<uint64_t>(bits_) / 8;
    const uint64_t head_bytes = align_bytes(multiply_bytes(n_tokens, row_bytes), 64);
    const uint64_t head_scales = bits_ == 8 ? align_bytes(n_tokens, 32) : 0;
    plane.head_bytes = static_cast<int64_t>(head_bytes);
    plane.head_scales = static_cast<int64_t>(head_scales);
    plane.data = arena.take<uint8_t>(multiply_bytes(static_cast<uint64_t>(n_heads), head_bytes));
    plane.scales = arena.take<uint16_t>(multiply_bytes(static_cast<uint64_t>(n_heads), head_scales));
    return plane;
}

void KvCache::put(const Plane& plane, int head, int64_t position, const float* values) const {
    uint8_t* row = plane.data + head * plane.head_bytes + position * plane.dims * bits_ / 8;
    if (bits_ == 8) {
        ops().store_q8(values, plane.dims, reinterpret_cast<int8_t*>(row), plane.scales + head * plane.head_scales + position);
    } else {
        ops().store_f16(values, plane.dims, reinterpret_cast<uint16_t*>(row));
    }
}

void KvCache::store(int block, int head, int64_t position, const float* key, const float* value) const {
    put(keys_[static_cast<size_t>(block)], head, position, key);
    put(values_[static_cast<size_t>(block)], head, position, value);
}

void KvCache::view(int block, int head, AttentionArgs& args) const {
    const Plane& keys = keys_[static_cast<size_t>(block)];
    const Plane& values = values_[static_cast<size_t>(block)];
    args.k = keys.data + head * keys.head_bytes;
    args.v = values.data + head * values.head_bytes;
    args.k_scales = keys.scales + head * keys.head_scales;
    args.v_scales = values.scales + head * values.head_scales;
    args.qk = keys.dims;
    args.vo = values.dims;
}

}  // namespace edge
