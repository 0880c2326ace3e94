// A level's weights as the forward pass reads them: views into the mapping, and small vectors gathered from their pieces.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "arena.h"
#include "artifact.h"
#include "kernels/registry.h"
#include "mapping.h"

namespace edge {

struct WeightPanel {
    Panel panel;
    matmul_t* matmul;
    int32_t bits;
    int64_t row_begin;     // where its rows and columns lie in the weight
    int32_t column_begin;
    int64_t tile_bytes;    // cost of one tile of rows
};

// (rows, columns), tiled by row panels or by column panels.
struct Weight {
    std::span<const WeightPanel> panels;
    bool column_panels = false;
    int64_t rows = 0;
    int32_t columns = 0;
    int32_t group = 8;  // of the activations it reads
    int64_t bytes = 0;          // of all panels
    int64_t row_tile_bytes = 0; // one tile of every panel: of a row of column panels that lie side by side
};

// A mixer of kind ssm at a level: `state` elements per group, `head` channels per head.
struct SsmBlock {
    int32_t n_heads = 0, n_groups = 0, norm_groups = 0;
    int32_t state = 0, head = 0;
    int32_t state_quantum = 8, head_quantum = 8;
    int32_t conv_kernel = 0;
    float step_least = 0, step_most = 0;
    float norm_eps = 0;                  // with it and `gain`, rms_norm over what is kept divides by the full width
    const uint16_t* dt = nullptr;        // (n_heads, d_model) float16, in the mapping
    const float* dt_bias = nullptr;      // (n_heads), like a and d
    const float* a = nullptr;
    const float* d = nullptr;
    const float* conv[3] = {};           // of x, b, c: (conv_kernel + 1, rows in axis order)
    const float* gain = nullptr;         // (n_heads, head)
    Weight z, x, b, c, out;

    int64_t rows() const { return int64_t{n_heads} * head; }
    int64_t states() const { return int64_t{n_groups} * state; }
};

struct Block {
    BlockKind kind = BlockKind::mlp;
    bool dropped = false;         // only the bias is left
    const float* norm = nullptr;  // (d_model)
    const float* bias = nullptr;  // (d_model) added to the output, or nullptr
    const float* post_norm = nullptr;  // (d_model) gain of the norm of the output with its bias, or nullptr

    // attention
    int32_t n_heads = 0, n_kv_heads = 0;
    int32_t qk = 0, vo = 0;       // kept elements per head
    int32_t qk_quantum = 8, vo_quantum = 8;
    float softmax_scale = 0;
    float softcap = 0;            // 0: none
    int32_t window = 0;           // 0: none
    const float* q_norm = nullptr;       // (qk) gains of the norms of each query and key head, or nullptr
    const float* k_norm = nullptr;
    const float* inv_freq = nullptr;     // (qk / quantum, n_kv_heads, quantum / 2)
    const float* row_bias[4] = {};       // of q, k; gate, up; or z, x, b, c, in axis order, or nullptr
    Weight q, k, v, o;

    // mlp
    int32_t width = 0;
    Activation activation = Activation::silu;
    bool gated = true;            // else the activation is the square of relu(up), and there is no gate
    Weight gate, up, down;

    SsmBlock ssm;
};

// Shapes and views of one level. `mapping` == nullptr: measures; only shapes are filled and the arena counts.
struct Weights {
    Weights(Arena& arena, const Artifact& artifact, int level, const Mapping* mapping);

    // Bytes of codes and scales that one token reads: everything but the rows of other tokens in the embedding.
    uint64_t token_bytes() const;

    int32_t d_model, vocab_size;
    float norm_eps, embedding_scale, logit_softcap;
    std::vector<Block> blocks;
    const float* norm = nullptr;
    Weight embed, head;
};

}  // namespace edge
