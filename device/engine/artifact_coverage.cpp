// That every level has all of the model (rules 4.1, 4.2 and 6.3).
#include <cmath>

#include "artifact_tensors.h"
#include "errors.h"
#include "kernels/ops.h"
#include "weight_shapes.h"

namespace edge {
namespace {

// Walks the pieces that a level uses of one weight: in order, gapless, all of the rows x columns.
// Returns their bytes before padding.
uint64_t check_weight(const std::vector<PanelPiece>& pieces, Shape shape, bool column_panels, const Artifact& artifact,
                      int level, const std::string& name, int32_t& group) {
    int64_t covered = 0;
    uint64_t bytes = 0;
    bool fits = true;
    for (const PanelPiece& p : pieces) {
        if (!artifact.runs[static_cast<size_t>(p.run)].used_by(level)) continue;
        fits = fits && (column_panels ? p.row_begin == 0 && p.row_end == shape.rows && p.column_begin == covered
                                      : p.column_begin == 0 && p.column_end == shape.columns && p.row_begin == covered);
        covered = column_panels ? p.column_end : p.row_end;
        bytes += panel_bytes(p);
        if (group == 0) group = p.group;
        if (p.group != group) {
            break_rule("4.1", "level " + std::to_string(level) + ": the panels of `" + name +
                                  "` and of weights that read the same activations have different groups");
        }
    }
    if (!fits || covered != (column_panels ? shape.columns : shape.rows)) {
        break_rule("4.2", "level " + std::to_string(level) + ": the panels of `" + name + "` do not cover " +
                              std::to_string(shape.rows) + " x " + std::to_string(shape.columns) + " in order");
    }
    return bytes;
}

void check_vector(const std::vector<VectorPiece>& pieces, int64_t size, const Artifact& artifact, int level,
                  const std::string& name) {
    int64_t covered = 0;
    for (const VectorPiece& piece : pieces) {
        if (artifact.runs[static_cast<size_t>(piece.run)].used_by(level)) covered += piece.size;
    }
    if (covered != size) {
        break_rule("3", "level " + std::to_string(level) + ": the pieces of `" + name + "` hold " + std::to_string(covered) +
                            " values, expected " + std::to_string(size));
    }
}

// What follows the axes of a mixer and is no panel.
void check_ssm(const BlockSpec& block, const std::array<int32_t, 2>& kept, const Artifact& artifact, int level) {
    for (int i = 0; i < 3; ++i) {
        const int64_t rows = weight_shape(block, kX + i, kept, artifact.model.d_model).rows;
        check_vector(block.ssm.conv[i], rows * (block.ssm.conv_kernel + 1), artifact, level,
                     block.name + "." + kSsmWeights[kX + i] + ".conv");
    }
    check_vector(block.ssm.gain, int64_t{block.n_heads} * kept[1], artifact, level, block.name + ".gain");
}

uint64_t check_block(const BlockSpec& block, const std::array<int32_t, 2>& kept, const Artifact& artifact, int level) {
    uint64_t bytes = 0;
    int32_t group = 0;  // shared by all weights that read the normed residual
    for (int w = first_weight(block); w < n_weights(block); ++w) {
        int32_t own_group = 0;
        Shape shape = weight_shape(block, w, kept, artifact.model.d_model);
        if (kept[0] == 0) shape = {has_column_panels(block, w) ? artifact.model.d_model : 0, shape.columns};
        bytes += check_weight(block.weights[w], shape, has_column_panels(block, w), artifact, level,
                              block.name + "." + weight_name(block, w), has_column_panels(block, w) ? own_group : group);
    }
    int n_biases = 0;
    for (const VectorPiece& bias : block.bias) n_biases += artifact.runs[static_cast<size_t>(bias.run)].used_by(level);
    if (n_biases > 1) break_rule("3", "level " + std::to_string(level) + " uses several `" + block.name + ".bias`");
    for (int w = 0; w < n_row_biases(block); ++w) {
        if (block.row_bias[w].empty()) continue;
        const int64_t rows = weight_shape(block, w, kept, artifact.model.d_model).rows;
        check_vector(block.row_bias[w], rows, artifact, level, block.name + "." + weight_name(block, w) + ".bias");
    }
    if (block.kind == BlockKind::ssm) check_ssm(block, kept, artifact, level);
    if (block.kind != BlockKind::attention) return bytes;
    const int64_t kv_heads = block.n_kv_heads;
    check_vector(block.inv_freq, kv_heads * kept[0] / 2, artifact, level, block.name + ".inv_freq");
    return bytes;
}

}  // namespace

void check_coverage(const Json& edge, const Artifact& artifact) {
    const ModelSpec& model = artifact.model;
    const Shape shape{model.vocab_size, model.d_model};
    std::vector<uint64_t> block_bytes;
    for (int level = 0; level < artifact.n_levels(); ++level) {
        int32_t embed_group = 0, head_group = 0;
        check_weight(model.embed, shape, false, artifact, level, "embed", embed_group);
        check_weight(model.head, shape, false, artifact, level, "head", head_group);
        const auto& allocation = artifact.levels[static_cast<size_t>(level)].allocation;
        uint64_t bytes = 0;
        for (size_t b = 0; b < model.blocks.size(); ++b) bytes += check_block(model.blocks[b], allocation[b], artifact, level);
        block_bytes.push_back(bytes);
    }
    for (const auto* pieces : {&model.embed, &model.head}) {
        for (const PanelPiece& piece : *pieces) {
            const bool whole_tiles = piece.row_begin % kTileRows == 0 && (piece.row_end % kTileRows == 0 || piece.row_end == shape.rows);
            if (piece.bits < 3 || !whole_tiles || piece.column_begin != 0 || piece.column_end != shape.columns) {
                break_rule("3", "a panel of `embed` or `head` must have whole tiles of 16 rows, all columns, and 3, 4, 6 or 8 bits");
            }
        }
    }
    const Json& levels = edge["levels"];
    for (size_t k = 0; k < levels.size(); ++k) {
        const std::string where = "edge.levels[" + std::to_string(k) + "]";
        integer(levels[k], "block_bytes", block_bytes[k], block_bytes[k], where, "6.3");
        const double rate = block_bytes.back() ? 1 - static_cast<double>(block_bytes[k]) / block_bytes.back() : 0;
        if (std::fabs(rate - artifact.levels[k].rate) > 1e-4) {
            break_rule("6.3", "`" + where + ".rate` is " + std::to_string(artifact.levels[k].rate) +
                                  ", block_bytes give " + std::to_string(rate));
        }
    }
}

}  // namespace edge
