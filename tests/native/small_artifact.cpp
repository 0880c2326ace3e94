#include "small_artifact.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "kernels/float16.h"
#include "sha256.h"
#include "temporary.h"

namespace edge_test {
namespace {

using Json = nlohmann::json;

constexpr int kDims = 32, kGroup = 32, kHeads = 4, kKvHeads = 2, kTaps = 4;
constexpr int kTop = kLevels - 1;
constexpr int kHead[kLevels] = {16, 24, 32};   // kept by each level: elements of attention heads (of both axes),
constexpr int kState[kLevels] = {8, 16, 16};   // states of the mixer,
constexpr int kWidth[kLevels] = {0, 32, 64};   // and channels of the MLP

// Collects tensors by the runs that they belong to, and writes the file.
class Writer {
public:
    explicit Writer(bool has_mixer) : has_mixer_(has_mixer) {}

    template <typename T>
    void add(const std::string& name, int first_level, int last_level, const char* dtype, const std::vector<T>& values,
             std::vector<size_t> shape = {}) {
        Tensor tensor{name + "/" + std::to_string(first_level), dtype, std::move(shape), {}};
        if (tensor.shape.empty()) tensor.shape = {values.size()};
        tensor.bytes.assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
        runs_[{first_level, last_level}].push_back(std::move(tensor));
    }

    void add_floats(const std::string& name, int level, size_t n, float low, float high) {
        std::vector<float> values(n);
        for (float& value : values) value = uniform(low, high);
        add(name, level, kTop, "F32", values);
    }

    void add_halves(const std::string& name, int first_level, int last_level, size_t n, float spread) {
        std::vector<uint16_t> values(n);
        for (uint16_t& value : values) value = edge::f32_to_f16(uniform(-spread, spread));
        add(name, first_level, last_level, "F16", values);
    }

    // Random codes of a row and column range, counted as block bytes from `level` on unless `is_model`.
    void add_panel(const std::string& name, int level, int row, int row_end, int column, int column_end, int bits,
                   bool is_model = false) {
        const int tiles = (row_end - row + 15) / 16, columns = column_end - column, groups = (columns + kGroup - 1) / kGroup;
        const size_t code_bytes = static_cast<size_t>(tiles * columns * bits * 2), n_scales = static_cast<size_t>(tiles * groups * 16);
        std::vector<uint8_t> bytes(code_bytes + 2 * n_scales);
        for (size_t i = 0; i < code_bytes; ++i) {
            bytes[i] = static_cast<uint8_t>(random_());
            if (bits == 8 && bytes[i] == 0x80) bytes[i] = 0;
        }
        for (size_t i = 0; i < n_scales; ++i) {
            const uint16_t scale = edge::f32_to_f16(uniform(0.5f, 1.5f) / (bits == 8 ? 100.0f : 60.0f));
            std::memcpy(&bytes[code_bytes + 2 * i], &scale, 2);
        }
        if (!is_model) {
            for (int k = level; k < kLevels; ++k) block_bytes_[k] += bytes.size();
        }
        bytes.resize((bytes.size() + 63) / 64 * 64);
        panels_[name + "/" + std::to_string(level)] = {row, row_end, column, column_end, bits, kGroup, bits == 8 ? -1 : 0};
        add(name, level, kTop, "U8", bytes);
    }

    std::string write(Json edge) {
        std::string data;
        Json outer = Json::object(), runs = Json::array();
        int n_pads = 0;
        const auto pad = [&](size_t alignment) {
            const size_t begin = data.size(), n = (alignment - begin % alignment) % alignment;
            if (n == 0) return;
            data.append(n, '\0');
            outer["pad." + std::to_string(n_pads++)] = {{"dtype", "U8"}, {"shape", Json::array({n})}, {"data_offsets", {begin, begin + n}}};
        };
        for (const auto& [levels, tensors] : runs_) {
            const size_t begin = data.size();
            for (const Tensor& tensor : tensors) {
                pad(64);
                const size_t at = data.size();
                data += tensor.bytes;
                outer[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {at, data.size()}}};
            }
            pad(4096);
            edge::Sha256 hash;
            hash.update(data.data() + begin, data.size() - begin);
            runs.push_back({{"first_level", levels.first}, {"last_level", levels.second}, {"begin", begin}, {"end", data.size()},
                            {"sha256", edge::hex(hash.finish())}});
        }
        edge["panels"] = panels_;
        edge["runs"] = runs;
        add_levels(edge, runs, 0);
        // file_bytes contain the length of the header, which contains them: it is found by trying.
        std::string header;
        for (size_t header_bytes = 0; header.size() != header_bytes || header.empty();) {
            header_bytes = std::max(header.size(), header_bytes);
            add_levels(edge, runs, 8 + header_bytes);
            outer["__metadata__"] = {{"edge", edge.dump()}};
            header = outer.dump();
            header.resize(std::max((header.size() + 8 + 4095) / 4096 * 4096 - 8, header_bytes), ' ');
        }
        std::string file(8, '\0');
        for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> (8 * i));
        return file + header + data;
    }

private:
    struct Tensor {
        std::string name, dtype;
        std::vector<size_t> shape;
        std::string bytes;
    };

    float uniform(float low, float high) {
        return low + (high - low) * static_cast<float>(random_() >> 8) / static_cast<float>(1 << 24);
    }

    void add_levels(Json& edge, const Json& runs, size_t data_offset) const {
        edge["levels"] = Json::array();
        for (int k = 0; k < kLevels; ++k) {
            size_t mapped = 0, last = 0;
            Json allocation = Json::array({{kHead[k], kHead[k]}});
            if (has_mixer_) allocation.push_back({kState[k], kHead[k]});
            allocation.push_back(Json::array({kWidth[k]}));
            for (const Json& run : runs) {
                const size_t begin = run["begin"], end = run["end"];
                if (run["first_level"] <= k && k <= run["last_level"]) mapped += end - begin;
                if (run["first_level"] <= k) last = end;
            }
            edge["levels"].push_back(
                {{"rate", 1 - static_cast<double>(block_bytes_[k]) / static_cast<double>(block_bytes_[kTop])},
                 {"mapped_bytes", mapped}, {"file_bytes", data_offset + last}, {"block_bytes", block_bytes_[k]},
                 {"allocation", allocation},
                 {"perplexity", nullptr}, {"kl", nullptr}, {"gave_up", Json::object()}});
        }
    }

    struct Order {  // as rule 5.1 wants it: by the first level; what larger levels replace comes last
        bool operator()(std::pair<int, int> a, std::pair<int, int> b) const {
            return a.first != b.first ? a.first < b.first : a.second > b.second;
        }
    };
    const bool has_mixer_;
    std::map<std::pair<int, int>, std::vector<Tensor>, Order> runs_;
    std::map<std::string, std::vector<int>> panels_;
    size_t block_bytes_[kLevels] = {};
    std::mt19937 random_{1};
};

void add_tokenizer(Writer& writer) {
    std::vector<std::string> texts;
    for (int i = 0; i < 256; ++i) texts.emplace_back(1, static_cast<char>(i));
    texts.emplace_back("<bos>"), texts.emplace_back("<eos>");
    while (texts.size() < kVocab) texts.push_back("<unused" + std::to_string(texts.size()) + ">");
    std::vector<uint8_t> bytes, kinds(256, 0);
    kinds.resize(258, 1), kinds.resize(kVocab, 4);
    std::vector<uint32_t> offsets{0}, sorted(kVocab);
    for (const std::string& text : texts) {
        bytes.insert(bytes.end(), text.begin(), text.end());
        offsets.push_back(static_cast<uint32_t>(bytes.size()));
    }
    std::iota(sorted.begin(), sorted.end(), 0u);
    std::stable_sort(sorted.begin(), sorted.end(), [&](uint32_t a, uint32_t b) { return texts[a] < texts[b]; });
    writer.add("tokenizer.bytes", 0, kTop, "U8", bytes);
    writer.add("tokenizer.offsets", 0, kTop, "U32", offsets);
    writer.add("tokenizer.sorted", 0, kTop, "U32", sorted);
    writer.add("tokenizer.kinds", 0, kTop, "U8", kinds);
    writer.add("tokenizer.merges", 0, kTop, "U32", std::vector<uint32_t>{}, {0, 4});
}

// Rows (or columns of the last weight) that a level adds to the one before.
struct Step {
    int begin, end;
};
Step step(const int (&kept)[kLevels], int level, int heads) {
    return {level ? heads * kept[level - 1] : 0, heads * kept[level]};
}

void add_rows(Writer& writer, const std::string& name, const int (&kept)[kLevels], int heads, int bits) {
    for (int k = 0; k < kLevels; ++k) {
        const Step rows = step(kept, k, heads);
        if (rows.begin < rows.end) writer.add_panel(name, k, rows.begin, rows.end, 0, kDims, bits);
    }
}

void add_columns(Writer& writer, const std::string& name, const int (&kept)[kLevels], int heads) {
    for (int k = 0; k < kLevels; ++k) {
        const Step columns = step(kept, k, heads);
        if (columns.begin < columns.end) writer.add_panel(name, k, 0, kDims, columns.begin, columns.end, 4);
    }
}

// One bias for every level but the top, which each level replaces.
void add_biases(Writer& writer, const std::string& block) {
    for (int k = 0; k < kTop; ++k) writer.add_halves(block + ".bias", k, k, kDims, 0.05f);
}

void add_attention(Writer& writer) {
    writer.add_floats("attn.norm", 0, kDims, 0.5f, 1.5f);
    add_rows(writer, "attn.q", kHead, kHeads, 4);
    add_rows(writer, "attn.k", kHead, kKvHeads, 8);
    add_rows(writer, "attn.v", kHead, kKvHeads, 4);
    add_columns(writer, "attn.o", kHead, kHeads);
    for (int k = 0; k < kLevels; ++k) {
        const Step rows = step(kHead, k, kKvHeads);
        writer.add_floats("attn.inv_freq", k, static_cast<size_t>(rows.end - rows.begin) / 2, 0.0f, 1.0f);
    }
    add_biases(writer, "attn");
}

void add_mixer(Writer& writer) {
    writer.add_floats("ssm.norm", 0, kDims, 0.5f, 1.5f);
    add_rows(writer, "ssm.z", kHead, kHeads, 4);
    add_rows(writer, "ssm.x", kHead, kHeads, 4);
    add_rows(writer, "ssm.b", kState, 1, 4);
    add_rows(writer, "ssm.c", kState, 1, 4);
    add_columns(writer, "ssm.out", kHead, kHeads);
    writer.add_halves("ssm.dt", 0, kTop, kHeads * kDims, 0.2f);
    writer.add_floats("ssm.dt.bias", 0, kHeads, -3, 1);
    writer.add_floats("ssm.a", 0, kHeads, -3, -0.3f);
    writer.add_floats("ssm.d", 0, kHeads, -1, 1);
    for (int k = 0; k < kLevels; ++k) {
        const Step rows = step(kHead, k, kHeads), states = step(kState, k, 1);
        const auto n_rows = static_cast<size_t>(rows.end - rows.begin), n_states = static_cast<size_t>(states.end - states.begin);
        writer.add_floats("ssm.x.conv", k, n_rows * (kTaps + 1), -0.5f, 0.5f);
        writer.add_floats("ssm.gain", k, n_rows, 0.5f, 1.5f);
        for (const char* name : {"ssm.b.conv", "ssm.c.conv"}) {
            if (n_states > 0) writer.add_floats(name, k, n_states * (kTaps + 1), -0.5f, 0.5f);
        }
    }
    add_biases(writer, "ssm");
}

void add_mlp(Writer& writer) {
    writer.add_floats("mlp.norm", 0, kDims, 0.5f, 1.5f);
    add_rows(writer, "mlp.gate", kWidth, 1, 4);
    add_rows(writer, "mlp.up", kWidth, 1, 4);
    add_columns(writer, "mlp.down", kWidth, 1);
    add_biases(writer, "mlp");
}

}  // namespace

std::string small_artifact(bool has_mixer) {
    Writer writer(has_mixer);
    writer.add_panel("embed", 0, 0, kVocab, 0, kDims, 8, true);
    writer.add_floats("norm", 0, kDims, 0.5f, 1.5f);
    add_tokenizer(writer);
    add_attention(writer);
    if (has_mixer) add_mixer(writer);
    add_mlp(writer);
    const Json axis = {kHead[kTop], 8};
    const Json attention = {{"name", "attn"}, {"kind", "attention"}, {"n_heads", kHeads}, {"n_kv_heads", kKvHeads},
                            {"softmax_scale", 0.18}, {"axes", {{"qk", axis}, {"vo", axis}}}};
    const Json mixer = {{"name", "ssm"}, {"kind", "ssm"}, {"n_heads", kHeads}, {"n_groups", 1}, {"norm_groups", 2},
                        {"conv_kernel", kTaps}, {"step_limits", {0.0, nullptr}},
                        {"axes", {{"state", {kState[kTop], 8}}, {"head", axis}}}};
    const Json mlp = {{"name", "mlp"}, {"kind", "mlp"}, {"gated", true}, {"activation", "silu"},
                      {"axes", {{"width", {kWidth[kTop], 32}}}}};
    const Json model = {{"name", "small"}, {"family", "test"}, {"d_model", kDims}, {"vocab_size", kVocab}, {"max_context", 512},
                        {"norm_eps", 1e-5}, {"embedding_scale", 1.0}, {"tied_head", true}, {"blocks", has_mixer ? Json{attention, mixer, mlp} : Json{attention, mlp}}};
    const Json tokenizer = {{"model", "byte_bpe"}, {"n_tokens", kVocab}, {"n_merges", 0}, {"pre_tokenizer", Json::array({"gpt2"})},
                            {"byte_fallback", false}, {"add_bos", false}, {"bos_id", 256}, {"eos_ids", Json::array({257})}, {"unk_id", nullptr},
                            {"chat", nullptr}};
    const Json codebook = {-32, -26, -21, -16, -12, -9, -6, -3, 0, 3, 6, 9, 13, 17, 22, 28};
    return writer.write({{"format_version", "1.4"}, {"model", model}, {"tokenizer", tokenizer},
                         {"codebooks", Json::array({codebook})}});
}

std::string write_temporary(const std::string& bytes) {
    const std::string path = temporary_file();
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
}

}  // namespace edge_test
