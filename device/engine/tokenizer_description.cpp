#include "tokenizer_description.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace edge {
namespace {

using nlohmann::json;

constexpr size_t kMaxSteps = 16, kMaxEndTokens = 64;

template <typename T>
using Names = std::initializer_list<std::pair<const char*, T>>;

constexpr Names<TokenizerModel> kModels = {{"byte_bpe", TokenizerModel::byte_bpe},
                                           {"sentencepiece_bpe", TokenizerModel::sentencepiece_bpe}};
constexpr Names<bool> kNormalizers = {{"none", false}, {"nfc", true}};
constexpr Names<SpacePrefix> kPrefixes = {
    {"none", SpacePrefix::none}, {"piece", SpacePrefix::piece}, {"each", SpacePrefix::each}, {"first", SpacePrefix::first}};
constexpr Names<SplitStep> kSteps = {{"digits", SplitStep::digits}, {"digit_runs", SplitStep::digit_runs},
                                     {"gpt2", SplitStep::gpt2},     {"llama3", SplitStep::llama3},
                                     {"qwen2", SplitStep::qwen2},   {"words", SplitStep::words}};

const json& member(const json& field, const char* name) {
    const auto found = field.find(name);
    if (found == field.end()) throw ArtifactError("tokenizer." + std::string(name) + " is missing (section 7)");
    return *found;
}

[[noreturn]] void mistyped(const char* name, const char* expected, const json& value) {
    throw ArtifactError("tokenizer." + std::string(name) + " is of type " + value.type_name() + ", expected " + expected +
                        " (section 7)");
}

int64_t integer(const char* name, const json& value, int64_t low) {
    if (!value.is_number_integer()) mistyped(name, "an integer", value);
    if (value.is_number_unsigned() ? value.get<uint64_t>() > INT32_MAX
                                   : value.get<int64_t>() < low || value.get<int64_t>() > INT32_MAX) {
        throw ArtifactError("tokenizer." + std::string(name) + " is " + value.dump() + ", expected " + std::to_string(low) +
                            " to 2147483647 (section 7)");
    }
    return value.get<int64_t>();
}

// Absent: false.
bool flag(const json& field, const char* name) {
    const auto found = field.find(name);
    if (found == field.end()) return false;
    const json& value = *found;
    if (!value.is_boolean()) mistyped(name, "true or false", value);
    return value.get<bool>();
}

// Absent or null: -1.
int32_t optional_id(const json& field, const char* name) {
    const auto found = field.find(name);
    return found == field.end() || found->is_null() ? -1 : static_cast<int32_t>(integer(name, *found, 0));
}

template <typename T>
T named(const char* name, const json& value, const Names<T>& names) {
    if (!value.is_string()) mistyped(name, "a string", value);
    const std::string& wanted = value.get_ref<const std::string&>();
    std::string known;
    for (const auto& [text, result] : names) {
        if (wanted == text) return result;
        known += (known.empty() ? "" : ", ") + std::string(text);
    }
    throw UnsupportedError("tokenizer." + std::string(name) + " is \"" + wanted.substr(0, 64) + "\", this engine knows " + known +
                           "\nhint: use a newer engine, or compile the model again with this version");
}

template <typename T>
T named_or(const char* name, const json& field, const Names<T>& names, T absent) {
    const auto found = field.find(name);
    return found == field.end() ? absent : named(name, *found, names);
}

const json& list(const json& field, const char* name, size_t max_size) {
    const json& value = member(field, name);
    if (!value.is_array()) mistyped(name, "a list", value);
    if (value.size() > max_size) {
        throw ArtifactError("tokenizer." + std::string(name) + " has " + std::to_string(value.size()) + " entries, at most " +
                            std::to_string(max_size) + " are allowed (section 7)");
    }
    return value;
}

}  // namespace

TokenizerDescription parse_tokenizer(const json& field) {
    if (!field.is_object()) throw ArtifactError("the header field tokenizer is missing or not an object (section 7)");
    TokenizerDescription d;
    d.model = named("model", member(field, "model"), kModels);
    d.n_tokens = static_cast<uint32_t>(integer("n_tokens", member(field, "n_tokens"), 1));
    d.n_merges = static_cast<uint32_t>(integer("n_merges", member(field, "n_merges"), 0));
    d.nfc = named_or("normalizer", field, kNormalizers, false);
    for (const json& step : list(field, "pre_tokenizer", kMaxSteps)) {
        d.pre_tokenizer.push_back(named("pre_tokenizer", step, kSteps));
    }
    d.space_prefix = named_or("space_prefix", field, kPrefixes, SpacePrefix::none);
    d.strip_leading_space = flag(field, "strip_leading_space");
    d.byte_fallback = flag(field, "byte_fallback");
    d.fuse_unk = flag(field, "fuse_unk");
    d.ignore_merges = flag(field, "ignore_merges");
    d.add_bos = flag(field, "add_bos");
    d.bos_id = optional_id(field, "bos_id");
    d.unk_id = optional_id(field, "unk_id");
    for (const json& id : list(field, "eos_ids", kMaxEndTokens)) {
        d.eos_ids.push_back(static_cast<int32_t>(integer("eos_ids", id, 0)));
    }
    return d;
}

}  // namespace edge
