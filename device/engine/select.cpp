#include "select.h"

#include <algorithm>
#include <cstdio>

#include "bytes.h"
#include "errors.h"
#include "gpu/device_memory.h"
#include "gpu/device_weights.h"
#include "mapping.h"
#include "session_memory.h"
#include "weights.h"

namespace edge {
namespace {

std::string rate_text(double rate) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g", rate);
    return text;
}

std::string level_text(const Artifact& artifact, int level) {
    return "level " + std::to_string(level) + " of 0.." + std::to_string(artifact.n_levels() - 1) + " (rate " +
           rate_text(artifact.levels[static_cast<size_t>(level)].rate) + ")";
}

void require_available(const Artifact& artifact, int level) {
    if (level < artifact.n_available()) return;
    throw Error{EDGE_TRUNCATED,
                level_text(artifact, level) + " needs a file of " +
                    std::to_string(artifact.levels[static_cast<size_t>(level)].file_bytes) + " bytes, this one has " +
                    std::to_string(artifact.n_file_bytes) + "\nhint: it holds levels 0.." +
                    std::to_string(artifact.n_available() - 1) + "; copy the whole file for more"};
}

// The way out when the smallest level does not fit: a context that would, or the memory to grant.
std::string smaller_hint(const Artifact& artifact, const Demand& demand, uint64_t budget_bytes) {
    Demand smaller = demand;
    int32_t fits = 0;
    for (int32_t too_long = demand.context_tokens; too_long - fits > 1;) {
        smaller.context_tokens = fits + (too_long - fits) / 2;
        const bool ok = level_needs(artifact, 0, smaller).total_bytes <= budget_bytes;
        (ok ? fits : too_long) = smaller.context_tokens;
    }
    if (fits < 64) return "\nhint: grant at least " + mebibytes(level_needs(artifact, 0, demand).total_bytes);
    smaller.context_tokens = fits >= 256 ? fits / 256 * 256 : fits / 64 * 64;
    return "\nhint: lower the context (`--context " + std::to_string(smaller.context_tokens) + "` needs " +
           mebibytes(level_needs(artifact, 0, smaller).total_bytes) + ")";
}

}  // namespace

Demand host_part(const Demand& demand) {
    Demand part = demand;
    if (demand.prefill_on_device) part.chunk_tokens = 1;
    part.prefill_on_device = part.decode_on_device = false;
    return part;
}

Demand device_part(const Demand& demand) {
    Demand part = demand;
    if (!demand.prefill_on_device) part.chunk_tokens = 1;
    part.prefill_on_device = part.decode_on_device = true;
    return part;
}

Needs level_needs(const Artifact& artifact, int level, const Demand& demand) {
    Arena vectors, kv, work;
    const Weights weights(vectors, artifact, level, nullptr);
    const Conversation conversation(work, artifact.model.vocab_size, demand.context_tokens);
    Needs needs{};
    const uint64_t mapped = artifact.levels[static_cast<size_t>(level)].mapped_bytes;
    const uint64_t here = demand.huge_pages ? copied_bytes(artifact, level) : mapped;
    if (demand.on_device()) {
        const gpu::MemoryBytes on_device = gpu::memory_bytes(artifact, weights, device_part(demand));
        needs.mapped_bytes = gpu::weight_bytes(artifact, level, demand.shares_weights);
        needs.kv_bytes = on_device.cache;
        needs.workspace_bytes = on_device.rows;
        needs.device_bytes = add_bytes(add_bytes(needs.mapped_bytes, needs.kv_bytes), needs.workspace_bytes);
        needs.buffer_bytes = std::max(on_device.largest, demand.shares_weights ? here : 0);
    }
    if (demand.on_host()) {
        const LevelMemory at_level(kv, work, weights, host_part(demand));
        needs.kv_bytes = add_bytes(needs.kv_bytes, kv.used());
    }
    if (demand.on_host() || demand.shares_weights) needs.mapped_bytes = add_bytes(needs.mapped_bytes, here);
    needs.workspace_bytes = add_bytes(add_bytes(add_bytes(needs.workspace_bytes, work.used()), vectors.used()),
                                      artifact.table_bytes() + sizeof(Tokenizer));
    needs.total_bytes = add_bytes(add_bytes(needs.mapped_bytes, needs.kv_bytes), needs.workspace_bytes);
    return needs;
}

Choice choose_by_budget(const Artifact& artifact, const Demand& demand, uint64_t budget_bytes, const std::string& source) {
    for (int level = artifact.n_available() - 1; level >= 0; --level) {
        const Needs needs = level_needs(artifact, level, demand);
        if (needs.total_bytes > budget_bytes) continue;
        return {level, level_text(artifact, level) + ": needs " + mebibytes(needs.total_bytes) + " of " +
                           mebibytes(budget_bytes) + "; " + source};
    }
    const uint64_t least = level_needs(artifact, 0, demand).total_bytes;
    throw Error{EDGE_OUT_OF_MEMORY,
                "`" + artifact.model.name + "` needs " + mebibytes(least) + " at its smallest level with context " +
                    std::to_string(demand.context_tokens) + ", " + mebibytes(budget_bytes) + " are granted: " +
                    std::to_string(least - budget_bytes) + " bytes are missing (" + source + ")" +
                    smaller_hint(artifact, demand, budget_bytes)};
}

Choice choose_by_rate(const Artifact& artifact, double rate) {
    const double largest = artifact.levels[0].rate;
    if (!(rate >= 0 && rate <= largest)) {
        throw Error{EDGE_BAD_ARGUMENT, "rate " + rate_text(rate) + " is out of range\nhint: this artifact offers rates from 0 to " +
                                           rate_text(largest)};
    }
    int level = artifact.n_levels() - 1;
    while (level > 0 && artifact.levels[static_cast<size_t>(level)].rate < rate - 1e-12) --level;
    require_available(artifact, level);
    return {level, level_text(artifact, level) + ": the largest that gives up at least " + rate_text(rate)};
}

Choice choose_by_level(const Artifact& artifact, int level, const std::string& why) {
    if (level < 0 || level >= artifact.n_levels()) {
        throw Error{EDGE_BAD_ARGUMENT, "level " + std::to_string(level) + " does not exist\nhint: this artifact has levels 0.." +
                                           std::to_string(artifact.n_levels() - 1)};
    }
    require_available(artifact, level);
    return {level, level_text(artifact, level) + ": " + why};
}

}  // namespace edge
