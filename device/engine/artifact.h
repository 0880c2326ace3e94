// The header of an artifact, read and checked against every rule of formats/SPEC.md. The file is treated as hostile:
// nothing is mapped, and nothing is allocated that a few bytes could make large, before the header has passed.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tokenizer.h"

namespace edge {

// Bytes [begin, end) of the data; offsets count from the first data byte.
struct Range {
    uint64_t begin = 0;
    uint64_t end = 0;
};

struct Run : Range {  // SPEC section 5
    int32_t first_level = 0;
    int32_t last_level = 0;
    std::string sha256;
    bool used_by(int level) const { return first_level <= level && level <= last_level; }
};

struct Level {  // SPEC section 6
    double rate = 0;
    uint64_t mapped_bytes = 0;
    uint64_t file_bytes = 0;
    double perplexity = 0;  // NaN: not measured
    double kl = 0;
    std::vector<std::array<int32_t, 2>> allocation;  // per block: {qk, vo}, {width, 0} or {state, head}
};

constexpr bool has_codebook(int32_t bits) { return bits == 2 || bits == 3 || bits == 4; }
constexpr bool is_panel_bits(int32_t bits) { return has_codebook(bits) || bits == 6 || bits == 8; }

struct PanelPiece {  // SPEC section 4
    uint64_t begin;
    int32_t run;
    int32_t row_begin, row_end, column_begin, column_end;
    int32_t bits, group, codebook;
};

struct VectorPiece {  // a one-dimensional F32 or F16 tensor
    uint64_t begin;
    int32_t run;
    int32_t size;
};

struct Axis {
    int32_t size = 0;
    int32_t quantum = 0;
};

enum class BlockKind { attention, mlp, ssm };
enum class Activation { silu, gelu_tanh };
enum AttentionWeight { kQ, kK, kV, kO };
enum MlpWeight { kGate, kUp, kDown };
enum SsmWeight { kZ, kX, kB, kC, kOut };

struct SsmSpec {  // of a block of kind ssm
    int32_t n_groups = 0, norm_groups = 0;
    int32_t conv_kernel = 0;
    float step_least = 0, step_most = 0;
    std::vector<VectorPiece> dt, dt_bias, a, d;   // one each, level 0
    std::vector<VectorPiece> conv[3], gain;       // of x, b, c
};

struct BlockSpec {  // SPEC section 3; pieces are in file order
    BlockKind kind = BlockKind::mlp;
    std::string name;
    int32_t n_heads = 0;
    int32_t n_kv_heads = 0;
    float softmax_scale = 0;
    bool gated = true;                            // an mlp: silu(gate) * up, else the square of relu(up)
    Axis axes[2];                                 // {qk, vo}, {width} or {state, head}
    std::vector<PanelPiece> weights[5];           // by AttentionWeight, MlpWeight or SsmWeight
    int32_t window = 0;                           // tokens that a token sees; 0: all before it
    float softcap = 0;                            // of scores; 0: none
    bool has_qk_norm = false, has_post_norm = false;
    Activation activation = Activation::silu;     // mlp
    std::vector<VectorPiece> norm;                // one, level 0; so are the next three where the block has them
    std::vector<VectorPiece> post_norm, q_norm, k_norm;
    std::vector<VectorPiece> inv_freq;            // attention
    std::vector<VectorPiece> row_bias[4];         // of q, k; gate, up; or z, x, b, c; empty: none
    SsmSpec ssm;
    std::vector<VectorPiece> bias;                // F16; a level uses at most one
};

struct ModelSpec {
    std::string name;
    std::string family;
    int32_t d_model = 0;
    int32_t vocab_size = 0;
    int32_t max_context = 0;
    float norm_eps = 0;
    float embedding_scale = 1;
    float logit_softcap = 0;  // 0: none
    bool tied_head = false;
    std::vector<BlockSpec> blocks;
    std::vector<PanelPiece> embed;
    std::vector<PanelPiece> head;  // the same as embed when tied
    std::vector<VectorPiece> norm;
};

// One of 4 or 8 values is repeated until there are 16: a table for 16-byte shuffles, whose upper index bits do not matter.
using Codebook = std::array<int8_t, 16>;

// A checked header. Movable; holds no file.
struct Artifact {
    uint64_t data_offset = 0;  // of the first data byte in the file
    uint64_t n_file_bytes = 0;
    ModelSpec model;
    std::vector<Run> runs;
    std::vector<Level> levels;
    std::vector<Codebook> codebooks;
    TokenizerDescription tokenizer;
    Range token_bytes, token_offsets, token_kinds, token_sorted, token_merges;  // section 7
    Range chat_template;   // empty: none
    std::string metadata;  // the `edge` JSON text

    int n_levels() const { return static_cast<int>(levels.size()); }
    int n_available() const;       // levels that lie wholly in this (perhaps cut) file, counted from the smallest
    uint64_t table_bytes() const;  // memory that this header keeps
};

// Reads and checks the header of an open file. Throws Error: EDGE_BAD_ARTIFACT, EDGE_UNSUPPORTED, EDGE_TRUNCATED, EDGE_IO.
Artifact read_artifact(int file);

}  // namespace edge
