// Sections 3, 4 and 7 of the header: what the model is made of, and that every level has all of it.
#include <cmath>
#include <limits>
#include <set>

#include "artifact_fields.h"
#include "artifact_tensors.h"
#include "bytes.h"
#include "errors.h"
#include "kernels/ops.h"
#include "tokenizer_description.h"

namespace edge {
namespace {

constexpr uint64_t kMaxSize = 1 << 24;      // elements along an axis: far above any model, products stay in 64 bits
constexpr uint64_t kMaxElements = 1 << 30;  // rows or columns of a weight
constexpr const char* kAttentionWeights[] = {"q", "k", "v", "o"};
constexpr const char* kMlpWeights[] = {"gate", "up", "down"};
constexpr const char* kSsmWeights[] = {"z", "x", "b", "c", "out"};

struct Shape {
    int64_t rows, columns;
};

const char* weight_name(const BlockSpec& block, int w) {
    switch (block.kind) {
        case BlockKind::attention: return kAttentionWeights[w];
        case BlockKind::mlp: return kMlpWeights[w];
        default: return kSsmWeights[w];
    }
}

int n_weights(const BlockSpec& block) {
    return block.kind == BlockKind::attention ? 4 : block.kind == BlockKind::mlp ? 3 : 5;
}

// An MLP without a gate begins with `up`.
int first_weight(const BlockSpec& block) { return block.kind == BlockKind::mlp && !block.gated ? kUp : 0; }

// Of the first weights: those that may have a bias for each of their rows.
int n_row_biases(const BlockSpec& block) { return block.kind == BlockKind::ssm ? 4 : 2; }

bool has_column_panels(const BlockSpec& block, int w) { return w + 1 == n_weights(block); }

// Rows and columns of a weight when the block keeps `kept` of its axes.
Shape weight_shape(const BlockSpec& block, int w, const std::array<int32_t, 2>& kept, int32_t d_model) {
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

uint64_t panel_bytes(const PanelPiece& p) {
    const uint64_t tiles = (static_cast<uint64_t>(p.row_end - p.row_begin) + 15) / 16;
    const uint64_t columns = static_cast<uint64_t>(p.column_end - p.column_begin);
    const uint64_t group = static_cast<uint64_t>(p.group);
    return tiles * (columns * static_cast<uint64_t>(p.bits) * 2 + (columns + group - 1) / group * 32);
}

// A panel names a codebook with a value for every code, or -1 where the codes are values themselves.
int32_t read_codebook_index(const Json& index, int32_t bits, const std::vector<size_t>& codebook_sizes, const std::string& where) {
    if (!has_codebook(bits)) {
        if (index == -1) return -1;
        break_rule("4", "`" + where + "` has " + std::to_string(bits) + " bits and codebook " + shown(index) + ", expected -1");
    }
    if (!index.is_number_integer() || index < 0 || index >= codebook_sizes.size()) {
        break_rule("4", "`" + where + "` names codebook " + shown(index) + " of " + std::to_string(codebook_sizes.size()));
    }
    const size_t size = codebook_sizes[index.get<size_t>()];
    if (size != size_t{1} << bits) {
        break_rule("4", "`" + where + "` has " + std::to_string(bits) + " bits and a codebook of " + std::to_string(size) +
                            " values, expected " + std::to_string(1 << bits));
    }
    return index.get<int32_t>();
}

PanelPiece read_panel(const Tensor& tensor, const Json& panels, const std::vector<size_t>& codebook_sizes) {
    const std::string where = "edge.panels." + tensor.name;
    const Json& box = list(panels, tensor.name.c_str(), 7, 7, "edge.panels", "4");
    PanelPiece piece{};
    piece.begin = tensor.begin;
    piece.run = tensor.run;
    int32_t* const fields[] = {&piece.row_begin, &piece.row_end, &piece.column_begin, &piece.column_end, &piece.bits, &piece.group};
    for (size_t i = 0; i < 6; ++i) *fields[i] = static_cast<int32_t>(integer(box[i], 0, kMaxElements, where, "4"));
    if (!is_panel_bits(piece.bits)) {
        break_rule("4", "`" + where + "` has " + std::to_string(piece.bits) + " bits, expected 2, 3, 4, 6 or 8");
    }
    if (piece.group < 8 || piece.group > 128 || piece.group % 8 != 0) {
        break_rule("4", "`" + where + "` has groups of " + std::to_string(piece.group) + ", expected a multiple of 8 up to 128");
    }
    const int32_t columns = piece.column_end - piece.column_begin;
    if (piece.row_end <= piece.row_begin || columns <= 0 || columns % 8 != 0 || piece.column_begin % piece.group != 0) {
        break_rule("4.1", "`" + where + "` has an empty range, or columns that are not whole units and groups");
    }
    piece.codebook = read_codebook_index(box[6], piece.bits, codebook_sizes, where);
    const uint64_t expected = align_bytes(panel_bytes(piece), 64);
    if (tensor.dtype != "U8" || tensor.shape.size() != 1 || tensor.shape[0] != expected) {
        break_rule("4.3", "tensor " + shown(tensor.name) + " is " + tensor.dtype + " of " +
                              std::to_string(tensor.end - tensor.begin) + " bytes, its panel needs U8 of " +
                              std::to_string(expected));
    }
    return piece;
}

class ModelReader {
public:
    ModelReader(const Json& edge, const TensorTable& tensors, Artifact& artifact)
        : panels_(object(edge, "panels", "edge", "4")), tensors_(tensors), artifact_(artifact) {}

    void read_codebooks(const Json& edge) {
        for (const Json& entry : list(edge, "codebooks", 0, 1'000'000, "edge", "4")) {
            const std::string where = "edge.codebooks[" + std::to_string(artifact_.codebooks.size()) + "]";
            if (!entry.is_array() || (entry.size() != 4 && entry.size() != 8 && entry.size() != 16)) {
                break_rule("4", "`" + where + "` is no list of 4, 8 or 16 values");
            }
            Codebook codebook;
            for (size_t i = 0; i < entry.size(); ++i) {
                const bool legal = entry[i].is_number_integer() && entry[i] >= -32 && entry[i] <= 31;
                if (!legal || (i && entry[i] < entry[i - 1])) {
                    break_rule("4", "`" + where + "` holds " + shown(entry[i]) + ", expected ascending integers from -32 to 31");
                }
                codebook[i] = entry[i].get<int8_t>();
            }
            for (size_t i = entry.size(); i < codebook.size(); ++i) codebook[i] = codebook[i - entry.size()];
            artifact_.codebooks.push_back(codebook);
            codebook_sizes_.push_back(entry.size());
        }
    }

    std::vector<PanelPiece> weight(const std::string& stem) const {
        std::vector<PanelPiece> pieces;
        for (const Tensor* tensor : tensors_.pieces(stem)) {
            pieces.push_back(read_panel(*tensor, panels_, codebook_sizes_));
            ++n_read_;
        }
        return pieces;
    }

    // The embedding or the head: one panel, or rows of their own bits called `stem`.0, `stem`.1 ...
    std::vector<PanelPiece> table(const std::string& stem) const {
        std::vector<PanelPiece> pieces = weight(stem);
        if (!pieces.empty()) return pieces;
        for (int i = 0;; ++i) {
            const std::vector<PanelPiece> rows = weight(stem + "." + std::to_string(i));
            if (rows.empty()) return pieces;
            pieces.insert(pieces.end(), rows.begin(), rows.end());
        }
    }

    void require_all_panels_read() const {
        if (n_read_ == panels_.size()) return;
        break_rule("4.2", "`edge.panels` has " + std::to_string(panels_.size()) + " panels, the model's weights have " +
                              std::to_string(n_read_));
    }

    std::vector<VectorPiece> vector(const std::string& stem, const char* dtype) const {
        std::vector<VectorPiece> pieces;
        for (const Tensor* tensor : tensors_.pieces(stem)) {
            if (tensor->dtype != dtype || tensor->shape.size() != 1 || tensor->shape[0] > kMaxElements) {
                break_rule("3", "tensor " + shown(tensor->name) + " is " + tensor->dtype + " with " +
                                    std::to_string(tensor->shape.size()) + " dimensions, expected a vector of " + dtype);
            }
            pieces.push_back({tensor->begin, tensor->run, static_cast<int32_t>(tensor->shape[0])});
        }
        return pieces;
    }

    // A vector that is whole in level 0.
    std::vector<VectorPiece> gain(const std::string& stem, int64_t size, const char* dtype = "F32") const {
        auto pieces = vector(stem, dtype);
        if (pieces.size() != 1 || pieces[0].size != size || !used_by_all(pieces[0].run)) {
            break_rule("3", "tensor `" + stem + "/0` is missing or has a wrong size, expected " + std::to_string(size) +
                                " " + dtype + " values for all levels");
        }
        return pieces;
    }

    Range table(const std::string& name, const char* dtype, uint64_t n_elements, uint64_t second = 0) const {
        const auto found = tensors_.pieces(name);
        const std::vector<uint64_t> shape = second ? std::vector{n_elements, second} : std::vector{n_elements};
        if (found.size() != 1 || found[0]->dtype != dtype || found[0]->shape != shape || !used_by_all(found[0]->run)) {
            break_rule("7", "tensor `" + name + "/0` is missing or has a wrong shape, expected " +
                                std::to_string(n_elements) + " x " + dtype + " for all levels");
        }
        return {found[0]->begin, found[0]->end};
    }

    Range bytes(const std::string& name, bool required) const {
        const auto found = tensors_.pieces(name);
        if (found.empty() && !required) return {};
        return table(name, "U8", found.empty() ? 0 : found[0]->end - found[0]->begin);
    }

private:
    bool used_by_all(int32_t run) const {
        const Run& r = artifact_.runs[static_cast<size_t>(run)];
        return r.first_level == 0 && r.last_level == artifact_.runs.back().last_level;
    }

    const Json& panels_;
    mutable size_t n_read_ = 0;
    std::vector<size_t> codebook_sizes_;
    const TensorTable& tensors_;
    Artifact& artifact_;
};

Axis read_axis(const Json& axes, const char* name, const std::string& where, uint64_t step) {
    const Json& pair = list(axes, name, 2, 2, where + ".axes", "3");
    const std::string field = where + ".axes." + name;
    Axis axis;
    axis.size = static_cast<int32_t>(integer(pair[0], 1, kMaxSize, field, "3"));
    axis.quantum = static_cast<int32_t>(integer(pair[1], 1, kMaxSize, field, "3"));
    if (step > 1 && (axis.size % axis.quantum != 0 || axis.quantum % static_cast<int32_t>(step) != 0)) {
        break_rule("3", "`" + field + "` is [" + std::to_string(axis.size) + ", " + std::to_string(axis.quantum) +
                            "], expected a whole number of quanta that are multiples of " + std::to_string(step));
    }
    return axis;
}

void read_attention(const Json& entry, const ModelReader& reader, const std::string& where, BlockSpec& block) {
    block.n_heads = static_cast<int32_t>(integer(entry, "n_heads", 1, 65536, where, "3"));
    block.n_kv_heads = static_cast<int32_t>(integer(entry, "n_kv_heads", 1, 65536, where, "3"));
    if (block.n_heads % block.n_kv_heads != 0) {
        break_rule("3", "`" + where + "` has " + std::to_string(block.n_kv_heads) + " key/value heads, expected a divisor of " +
                            std::to_string(block.n_heads));
    }
    block.softmax_scale = static_cast<float>(number(entry, "softmax_scale", where, "3"));
    const Json& axes = object(entry, "axes", where, "3");
    block.axes[0] = read_axis(axes, "qk", where, 8);
    block.axes[1] = read_axis(axes, "vo", where, 8);
    for (const Axis& axis : block.axes) {
        if (static_cast<uint64_t>(axis.size) * static_cast<uint64_t>(block.n_heads) > kMaxElements) {
            break_rule("3", "`" + where + ".axes` has heads of " + std::to_string(axis.size) + " elements, which is too many");
        }
    }
    block.inv_freq = reader.vector(block.name + ".inv_freq", "F32");
}

// A divisor of the heads: groups that share b and c, or are normalized together.
int32_t read_groups(const Json& entry, const char* name, const std::string& where, int32_t n_heads) {
    const auto n = static_cast<int32_t>(integer(entry, name, 1, 65536, where, "3"));
    if (n_heads % n != 0) {
        break_rule("3", "`" + where + "." + name + "` is " + std::to_string(n) + ", expected a divisor of " +
                            std::to_string(n_heads) + " heads");
    }
    return n;
}

void read_ssm(const Json& entry, const ModelReader& reader, const std::string& where, int32_t d_model, BlockSpec& block) {
    SsmSpec& ssm = block.ssm;
    block.n_heads = static_cast<int32_t>(integer(entry, "n_heads", 1, 65536, where, "3"));
    ssm.n_groups = read_groups(entry, "n_groups", where, block.n_heads);
    ssm.norm_groups = read_groups(entry, "norm_groups", where, block.n_heads);
    ssm.conv_kernel = static_cast<int32_t>(integer(entry, "conv_kernel", 2, kMaxConvKernel, where, "3"));
    const Json& limits = list(entry, "step_limits", 2, 2, where, "3");
    for (size_t i = 0; i < 2; ++i) {
        const bool is_open = i == 1 && limits[i].is_null();
        if (!is_open && !limits[i].is_number()) break_rule("3", "`" + where + ".step_limits` holds " + shown(limits[i]));
        const float value = is_open ? std::numeric_limits<float>::infinity() : limits[i].get<float>();
        (i == 0 ? ssm.step_least : ssm.step_most) = value;
    }
    if (!(ssm.step_least >= 0 && ssm.step_least <= ssm.step_most && std::isfinite(ssm.step_least))) {
        break_rule("3", "`" + where + ".step_limits` is " + shown(limits) + ", expected 0 <= least <= most");
    }
    const Json& axes = object(entry, "axes", where, "3");
    block.axes[0] = read_axis(axes, "state", where, 8);
    block.axes[1] = read_axis(axes, "head", where, 8);
    const uint64_t rows = static_cast<uint64_t>(block.n_heads) * static_cast<uint64_t>(block.axes[1].size);
    const uint64_t states = static_cast<uint64_t>(ssm.n_groups) * static_cast<uint64_t>(block.axes[0].size);
    if (rows > kMaxElements / 16 || states > kMaxElements / 16) {
        break_rule("3", "`" + where + ".axes` has " + std::to_string(rows) + " channels and " + std::to_string(states) +
                            " states, which is too many");
    }
    ssm.dt = reader.gain(block.name + ".dt", int64_t{block.n_heads} * d_model, "F16");
    ssm.dt_bias = reader.gain(block.name + ".dt.bias", block.n_heads);
    ssm.a = reader.gain(block.name + ".a", block.n_heads);
    ssm.d = reader.gain(block.name + ".d", block.n_heads);
    for (int i = 0; i < 3; ++i) ssm.conv[i] = reader.vector(block.name + "." + kSsmWeights[kX + i] + ".conv", "F32");
    ssm.gain = reader.vector(block.name + ".gain", "F32");
}

// The first weights of a block (q and k, gate and up, z x b c) may have a bias for each of their rows.
void read_row_biases(const Json& entry, const ModelReader& reader, const std::string& where, BlockSpec& block) {
    if (!entry.contains("row_bias")) return;
    const int n = n_row_biases(block);
    for (const Json& name : list(entry, "row_bias", 0, static_cast<size_t>(n), where, "3")) {
        int which = first_weight(block);
        while (which < n && name != weight_name(block, which)) ++which;
        if (which == n) {
            break_rule("3", "`" + where + ".row_bias` names " + shown(name) + ", expected " + weight_name(block, first_weight(block)) + " to " +
                                weight_name(block, n - 1));
        }
        const std::string tensor = block.name + "." + weight_name(block, which) + ".bias";
        block.row_bias[which] = reader.vector(tensor, "F32");
        if (block.row_bias[which].empty()) break_rule("3", "tensor `" + tensor + "` is missing");
    }
}

BlockSpec read_block(const Json& entry, const ModelReader& reader, const std::string& where, int32_t d_model) {
    if (!entry.is_object()) break_rule("3", "`" + where + "` is " + shown(entry) + ", expected an object");
    BlockSpec block;
    block.name = text(entry, "name", where, "3");
    const std::string& kind = text(entry, "kind", where, "3");
    if (kind == "attention") {
        block.kind = BlockKind::attention;
        read_attention(entry, reader, where, block);
    } else if (kind == "mlp") {
        const std::string& activation = text(entry, "activation", where, "3");
        block.gated = boolean(entry, "gated", where, "3");
        if (block.gated ? activation != "silu" && activation != "gelu_tanh" : activation != "relu2") {
            throw UnsupportedError("`" + where + "` is neither a gated MLP with silu or gelu_tanh nor one with relu2 and no gate " +
                                   "(rule 3)\nhint: update edgesdk");
        }
        block.activation = activation == "gelu_tanh" ? Activation::gelu_tanh : Activation::silu;
        block.axes[0] = read_axis(object(entry, "axes", where, "3"), "width", where, 1);
    } else if (kind == "ssm") {
        block.kind = BlockKind::ssm;
        read_ssm(entry, reader, where, d_model, block);
    } else {
        throw UnsupportedError("`" + where + ".kind` is " + shown(kind) + ", this engine knows attention, mlp and ssm (rule 3)" +
                               "\nhint: update edgesdk");
    }
    for (int w = first_weight(block); w < n_weights(block); ++w) {
        block.weights[w] = reader.weight(block.name + "." + weight_name(block, w));
    }
    read_row_biases(entry, reader, where, block);
    read_optional_fields(entry, where, block);
    block.norm = reader.gain(block.name + ".norm", d_model);
    if (block.has_post_norm) block.post_norm = reader.gain(block.name + ".post_norm", d_model);
    if (block.has_qk_norm) {
        block.q_norm = reader.gain(block.name + ".q_norm", block.axes[0].size);
        block.k_norm = reader.gain(block.name + ".k_norm", block.axes[0].size);
    }
    block.bias = reader.vector(block.name + ".bias", "F16");
    for (const VectorPiece& bias : block.bias) {
        if (bias.size != d_model) break_rule("3", "tensor `" + block.name + ".bias` has a wrong size");
    }
    return block;
}

void read_tokenizer(const Json& edge, const ModelReader& reader, Artifact& artifact) {
    artifact.tokenizer = parse_tokenizer(object(edge, "tokenizer", "edge", "7"));
    const uint64_t n_tokens = artifact.tokenizer.n_tokens;
    artifact.token_bytes = reader.bytes("tokenizer.bytes", true);
    artifact.token_offsets = reader.table("tokenizer.offsets", "U32", n_tokens + 1);
    artifact.token_kinds = reader.table("tokenizer.kinds", "U8", n_tokens);
    artifact.token_sorted = reader.table("tokenizer.sorted", "U32", n_tokens);
    artifact.token_merges = reader.table("tokenizer.merges", "U32", artifact.tokenizer.n_merges, 4);
    artifact.chat_template = reader.bytes("chat_template", false);
}

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

void read_model(const Json& edge, const TensorTable& tensors, Artifact& artifact) {
    const Json& entry = object(edge, "model", "edge", "3");
    const std::string where = "edge.model";
    ModelSpec& model = artifact.model;
    model.name = text(entry, "name", where, "3");
    model.family = text(entry, "family", where, "3");
    model.d_model = static_cast<int32_t>(integer(entry, "d_model", 8, kMaxSize, where, "3"));
    if (model.d_model % 8 != 0) {
        break_rule("3", "`edge.model.d_model` is " + std::to_string(model.d_model) + ", expected a multiple of 8");
    }
    model.vocab_size = static_cast<int32_t>(integer(entry, "vocab_size", 1, kMaxSize, where, "3"));
    model.max_context = static_cast<int32_t>(integer(entry, "max_context", 1, kMaxElements, where, "3"));
    model.norm_eps = static_cast<float>(number(entry, "norm_eps", where, "3"));
    model.embedding_scale = static_cast<float>(number(entry, "embedding_scale", where, "3"));
    model.tied_head = boolean(entry, "tied_head", where, "3");
    model.logit_softcap = optional_cap(entry, "logit_softcap", where);

    ModelReader reader(edge, tensors, artifact);
    reader.read_codebooks(edge);
    std::set<std::string> names;
    for (const Json& block : list(entry, "blocks", 1, 100'000, where, "3")) {
        const std::string field = where + ".blocks[" + std::to_string(model.blocks.size()) + "]";
        model.blocks.push_back(read_block(block, reader, field, model.d_model));
        if (!names.insert(model.blocks.back().name).second) break_rule("3", "`" + field + ".name` is used twice");
    }
    model.embed = reader.table("embed");
    model.head = model.tied_head ? model.embed : reader.table("head");
    reader.require_all_panels_read();
    model.norm = reader.gain("norm", model.d_model);
    read_tokenizer(edge, reader, artifact);
}

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
