// Sections 3, 4 and 7 of the header: what the model is made of.
#include <cmath>
#include <limits>
#include <set>

#include "artifact_fields.h"
#include "artifact_tensors.h"
#include "bytes.h"
#include "errors.h"
#include "kernels/ops.h"
#include "tokenizer_description.h"
#include "weight_shapes.h"

namespace edge {
namespace {

constexpr uint64_t kMaxSize = 1 << 24;      // elements along an axis: far above any model, products stay in 64 bits
constexpr uint64_t kMaxElements = 1 << 30;  // rows or columns of a weight

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
    std::vector<PanelPiece> row_panels(const std::string& stem) const {
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
    model.embed = reader.row_panels("embed");
    model.head = model.tied_head ? model.embed : reader.row_panels("head");
    reader.require_all_panels_read();
    model.norm = reader.gain("norm", model.d_model);
    read_tokenizer(edge, reader, artifact);
}

}  // namespace edge
