// Which level to run: arithmetic on the header alone, before anything is mapped.
#pragma once
#include <cstdint>
#include <string>

#include "artifact.h"

namespace edge {

// How a model is to be run, as far as it decides what memory it needs.
struct Demand {
    int32_t context_tokens;
    int32_t kv_bits;
    int32_t n_threads;
    int32_t chunk_tokens = 0;   // 0: the engine's choice
    bool huge_pages = false;
    bool prefill_on_device = false;  // of a GPU: prompts run there, with weights, caches and rows in its memory;
    bool decode_on_device = false;   // and so do single tokens
    bool shares_weights = false;     // the device reads the panels where they are mapped or copied for the host

    bool on_device() const { return prefill_on_device || decode_on_device; }
    bool on_host() const { return !prefill_on_device || !decode_on_device; }
};

// What each side needs of it: as if it ran alone, but chunks are of one token where it only decodes.
Demand host_part(const Demand& demand);
Demand device_part(const Demand& demand);

// Bytes that a level needs; kTooManyBytes where 64 bits do not hold them.
struct Needs {
    uint64_t mapped_bytes;
    uint64_t kv_bytes;
    uint64_t workspace_bytes;  // one session's buffers, the level's small vectors, tables of header and tokenizer
    uint64_t total_bytes;
    uint64_t device_bytes;     // of them, in memory of a GPU
    uint64_t buffer_bytes;     // the largest piece of a session there
};
Needs level_needs(const Artifact& artifact, int level, const Demand& demand);

struct Choice {
    int level;
    std::string reason;  // one line
};

// The largest available level that fits `budget_bytes`; `source` says where that number comes from. Throws
// EDGE_OUT_OF_MEMORY, with the missing bytes and the context that would fit, when none does.
Choice choose_by_budget(const Artifact& artifact, const Demand& demand, uint64_t budget_bytes, const std::string& source);

// The largest level whose rate is at least `rate`. Throws EDGE_BAD_ARGUMENT out of [0, largest rate], EDGE_TRUNCATED when
// the file does not hold that level.
Choice choose_by_rate(const Artifact& artifact, double rate);

// Throws EDGE_BAD_ARGUMENT or EDGE_TRUNCATED.
Choice choose_by_level(const Artifact& artifact, int level, const std::string& why = "as asked");

}  // namespace edge
