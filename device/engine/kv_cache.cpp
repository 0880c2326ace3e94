#include "kv_cache.h"

#include <algorithm>
#include <cstring>

#include "bytes.h"
#include "kernels/registry.h"

namespace edge {
namespace {

constexpr int64_t kKeyTile = 16, kValueTile = 4;  // tokens whose codes lie together (kernels/ops.h)

}  // namespace

KvCache::KvCache(Arena& arena, const Weights& weights, int32_t n_tokens, int32_t bits)
    : n_tokens_(bits == 8 ? (int64_t{n_tokens} + kKeyBlock - 1) / kKeyBlock * kKeyBlock : n_tokens), bits_(bits), keys_(weights.blocks.size()),
      values_(weights.blocks.size()) {
    for (size_t b = 0; b < weights.blocks.size(); ++b) {
        const Block& block = weights.blocks[b];
        if (block.kind != BlockKind::attention || block.dropped) continue;
        keys_[b] = allot(arena, block.n_kv_heads, block.qk, block.qk);
        values_[b] = allot(arena, block.n_kv_heads, block.vo, bits == 8 ? padded_values(block.vo) : block.vo);
    }
}

KvCache::Plane KvCache::allot(Arena& arena, int32_t n_heads, int32_t dims, int64_t held_dims) const {
    Plane plane;
    plane.n_heads = n_heads;
    plane.dims = dims;
    plane.held_dims = held_dims;
    const uint64_t n_tokens = static_cast<uint64_t>(n_tokens_);
    const uint64_t row_bytes = static_cast<uint64_t>(held_dims) * static_cast<uint64_t>(bits_) / 8;
    const uint64_t head_bytes = align_bytes(multiply_bytes(n_tokens, row_bytes), 64);
    const uint64_t head_scales = bits_ == 8 ? n_tokens : 0;
    plane.head_bytes = static_cast<int64_t>(head_bytes);
    plane.head_scales = static_cast<int64_t>(head_scales);
    plane.data = arena.take<uint8_t>(multiply_bytes(static_cast<uint64_t>(n_heads), head_bytes));
    plane.scales = arena.take<uint16_t>(multiply_bytes(static_cast<uint64_t>(n_heads), head_scales));
    return plane;
}

void KvCache::store(int block, int head, int64_t position, const float* key, const float* value, int8_t* codes) const {
    const Plane& keys = keys_[static_cast<size_t>(block)];
    const Plane& values = values_[static_cast<size_t>(block)];
    uint8_t* k = keys.data + head * keys.head_bytes;
    uint8_t* v = values.data + head * values.head_bytes;
    if (bits_ != 8) {
        ops().store_f16(key, keys.dims, reinterpret_cast<uint16_t*>(k) + position * keys.dims);
        ops().store_f16(value, values.dims, reinterpret_cast<uint16_t*>(v) + position * values.dims);
        return;
    }
    ops().store_q8(key, keys.dims, codes, keys.scales + head * keys.head_scales + position);
    for (int c = 0; c < keys.dims; c += 4) std::memcpy(k + key_code_index(position, c, keys.dims), codes + c, 4);
    ops().store_q8(value, values.dims, codes, values.scales + head * values.head_scales + position);
    uint8_t* column = v + value_code_index(position, 0, values.dims);
    for (int c = 0; c < values.dims; ++c) column[4 * c] = static_cast<uint8_t>(codes[c]);
}

void KvCache::take(const KvCache& other, int64_t n_tokens) const {
    for (size_t b = 0; b < keys_.size(); ++b) {
        take(other.keys_[b], keys_[b], n_tokens, bits_ == 8 ? kKeyTile : 1);
        take(other.values_[b], values_[b], n_tokens, bits_ == 8 ? kValueTile : 1);
    }
}

// A plane lies in rows of so many tokens; each row has the elements of a head in order, so that its beginning is a smaller head.
void KvCache::take(const Plane& from, const Plane& to, int64_t n_tokens, int64_t row_tokens) const {
    const int64_t element_bytes = row_tokens * bits_ / 8, n_rows = (n_tokens + row_tokens - 1) / row_tokens;
    const int64_t from_bytes = from.held_dims * element_bytes, to_bytes = to.held_dims * element_bytes;
    const auto n_bytes = static_cast<size_t>(std::min(from.dims, to.dims) * element_bytes);
    for (int64_t head = 0; head < std::min(from.n_heads, to.n_heads); ++head) {
        const uint8_t* row = from.data + head * from.head_bytes;
        uint8_t* own = to.data + head * to.head_bytes;
        for (int64_t i = 0; i < n_rows; ++i) std::memcpy(own + i * to_bytes, row + i * from_bytes, n_bytes);
        if (bits_ != 8) continue;
        std::memcpy(to.scales + head * to.head_scales, from.scales + head * from.head_scales,
                    static_cast<size_t>(n_tokens) * sizeof(uint16_t));
    }
    if (from.data) Arena::release(from.data, static_cast<size_t>(from.n_heads * from.head_bytes));
}

std::array<KvCache::Rows, 4> KvCache::rows(int block, int head) const {
    const Plane& keys = keys_[static_cast<size_t>(block)];
    const Plane& values = values_[static_cast<size_t>(block)];
    const auto codes = [&](const Plane& plane, int64_t row_tokens) {
        return Rows{plane.data + head * plane.head_bytes, row_tokens, row_tokens * plane.held_dims * bits_ / 8};
    };
    const auto scales = [&](const Plane& plane) {
        return Rows{reinterpret_cast<uint8_t*>(plane.scales + head * plane.head_scales), 1, bits_ == 8 ? 2 : 0};
    };
    return {codes(keys, bits_ == 8 ? kKeyTile : 1), scales(keys), codes(values, bits_ == 8 ? kValueTile : 1), scales(values)};
}

int64_t KvCache::bytes(int block, int64_t n_tokens) const {
    int64_t total = 0;
    for (const Plane* plane : {&keys_[static_cast<size_t>(block)], &values_[static_cast<size_t>(block)]}) {
        total += n_tokens * plane->n_heads * (plane->dims * bits_ / 8 + (bits_ == 8 ? 2 : 0));
    }
    return total;
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
