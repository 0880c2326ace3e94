// Names and shapes of a block's weights, and the bytes of a panel.
#pragma once
#include <array>
#include <cstdint>

#include "artifact.h"

namespace edge {

inline constexpr const char* kAttentionWeights[] = {"q", "k", "v", "o"};
inline constexpr const char* kMlpWeights[] = {"gate", "up", "down"};
inline constexpr const char* kSsmWeights[] = {"z", "x", "b", "c", "out"};

struct Shape {
    int64_t rows, columns;
};

inline const char* weight_name(const BlockSpec& block, int w) {
    switch (block.kind) {
        case BlockKind::attention: return kAttentionWeights[w];
        case BlockKind::mlp: return kMlpWeights[w];
        default: return kSsmWeights[w];
    }
}

inline int n_weights(const BlockSpec& block) {
    return block.kind == BlockKind::attention ? 4 : block.kind == BlockKind::mlp ? 3 : 5;
}

// An MLP without a gate begins with `up`.
inline int first_weight(const BlockSpec& block) { return block.kind == BlockKind::mlp && !block.gated ? kUp : 0; }

// Of the first weights: those that may have a bias for each of their rows.
inline int n_row_biases(const BlockSpec& block) { return block.kind == BlockKind::ssm ? 4 : 2; }

inline bool has_column_panels(const BlockSpec& block, int w) { return w + 1 == n_weights(block); }

// Rows and columns of a weight when the block keeps `kept` of its axes.
inline Shape weight_shape(const BlockSpec& block, int w, const std::array<int32_t, 2>& kept, int32_t d_model) {
    if (block.kind == BlockKind::mlp) return w == kDown ? Shape{d_model, kept[0]} : Shape{kept[0], d_model};
    const int64_t heads = block.n_heads, kv_heads = block.n_kv_heads;
    if (block.kind == BlockKind::ssm) {
        if (w == kOut) return {d_model, heads * kept[1]};
        return w == kB || w == kC ? Shape{int64_t{block.ssm.n_groups} * kept[0], d_model} : Shape{heads * kept[1], d_model};
    }
    switch (w) {
        case kQ: return {heads * kept[0], d_model};
        case kK: return {kv_heads * kept[0], d_model};
        case kV: return {kv_heads * kept[1], d_model};
        default: return {d_model, heads * kept[1]};
    }
}

inline uint64_t panel_bytes(const PanelPiece& p) {
    const uint64_t tiles = (static_cast<uint64_t>(p.row_end - p.row_begin) + 15) / 16;
    const uint64_t columns = static_cast<uint64_t>(p.column_end - p.column_begin);
    const uint64_t group = static_cast<uint64_t>(p.group);
    return tiles * (columns * static_cast<uint64_t>(p.bits) * 2 + (columns + group - 1) / group * 32);
}

}  // namespace edge
