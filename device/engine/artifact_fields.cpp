#include "artifact_fields.h"

#include <algorithm>
#include <initializer_list>

#include "errors.h"

namespace edge {
namespace {

using Names = std::initializer_list<const char*>;

constexpr Names kModel = {"family",          "name",      "d_model", "vocab_size",   "max_context", "norm_eps",
                          "embedding_scale", "tied_head", "blocks",  "logit_softcap"};
constexpr Names kAttention = {"name",      "kind",          "axes",   "row_bias", "n_heads", "n_kv_heads",
                              "post_norm", "softmax_scale", "window", "softcap",  "qk_norm"};
constexpr Names kMlp = {"name", "kind", "axes", "row_bias", "activation", "gated", "post_norm"};
constexpr Names kSsm = {"name", "kind", "axes", "row_bias", "n_heads", "n_groups", "norm_groups", "conv_kernel", "step_limits"};
constexpr Names kAdded = {"logit_softcap", "post_norm", "window", "softcap", "qk_norm"};
constexpr uint64_t kMaxWindow = (1 << 30) - 1;

bool contains(Names names, const std::string& name) { return std::find(names.begin(), names.end(), name) != names.end(); }

void check_entry(const Json& entry, Names known, int major, const std::string& where) {
    for (const auto& field : entry.items()) {
        if (major == 1 ? !contains(kAdded, field.key()) : contains(known, field.key())) continue;
        if (major == 1) break_rule("1.7", "`" + where + "." + field.key() + "` needs format 2, this file is of format 1");
        throw UnsupportedError("`" + where + "." + field.key().substr(0, 60) + "` is a field that this engine does not know (rule 1.7)" +
                               "\nhint: update edgesdk");
    }
}

bool optional_flag(const Json& entry, const char* key, const std::string& where) {
    return entry.contains(key) && boolean(entry, key, where, "3");
}

}  // namespace

float optional_cap(const Json& entry, const char* key, const std::string& where) {
    if (!entry.contains(key)) return 0;
    const double cap = number(entry, key, where, "3");
    if (cap < 1e-6 || cap > 1e6) {
        break_rule("3", "`" + where + "." + key + "` is " + shown(entry[key]) + ", expected a number from 1e-6 to 1e6");
    }
    return static_cast<float>(cap);
}

void read_optional_fields(const Json& entry, const std::string& where, BlockSpec& block) {
    block.has_post_norm = optional_flag(entry, "post_norm", where);
    if (block.kind != BlockKind::attention) return;
    if (entry.contains("window")) block.window = static_cast<int32_t>(integer(entry, "window", 1, kMaxWindow, where, "3"));
    block.softcap = optional_cap(entry, "softcap", where);
    block.has_qk_norm = optional_flag(entry, "qk_norm", where);
    if (block.has_qk_norm && block.axes[0].size != block.axes[0].quantum) {
        break_rule("3", "`" + where + "` has qk_norm and a qk axis of [" + std::to_string(block.axes[0].size) + ", " +
                            std::to_string(block.axes[0].quantum) + "], expected one quantum");
    }
}

void check_known_fields(const Json& model, int major) {
    check_entry(model, kModel, major, "edge.model");
    size_t n = 0;
    for (const Json& block : model["blocks"]) {
        const std::string where = "edge.model.blocks[" + std::to_string(n++) + "]";
        const std::string& kind = text(block, "kind", where, "3");  // comparing JSON with text would allocate, and may not throw
        const bool is_attention = kind == "attention", is_mlp = kind == "mlp";
        check_entry(block, is_attention ? kAttention : is_mlp ? kMlp : kSsm, major, where);
        if (is_mlp && major == 1 && text(block, "activation", where, "3") == "gelu_tanh") {
            break_rule("1.7", "`" + where + ".activation` needs format 2, this file is of format 1");
        }
    }
}

}  // namespace edge
