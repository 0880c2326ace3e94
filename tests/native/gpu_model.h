// What tests of GPUs share: models on a backend, their logits, and what was announced of their memory.
#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "edge.h"
#include "engine_check.h"
#include "gpu/device.h"
#include "gpu/shared_pages.h"
#include "small_artifact.h"

inline bool is_pocl(const edge::gpu::Device& device) { return contains(device.info().driver, "PoCL"); }

struct Close {
    void operator()(edge_model* model) const { edge_model_close(model); }
    void operator()(edge_session* session) const { edge_session_close(session); }
};
using ModelHandle = std::unique_ptr<edge_model, Close>;
using SessionHandle = std::unique_ptr<edge_session, Close>;

inline edge_load_options options_of(int32_t level, int32_t kv_bits, edge_backend backend) {
    edge_load_options options{};
    options.struct_size = sizeof options;
    options.choose = 3;
    options.level = level;
    options.context_tokens = 128;
    options.kv_bits = kv_bits;
    options.chunk_tokens = 40;
    options.backend = backend;
    return options;
}

inline ModelHandle load(const std::string& path, int32_t level, int32_t kv_bits, edge_backend backend) {
    const edge_load_options options = options_of(level, kv_bits, backend);
    edge_model* model = nullptr;
    check(edge_model_load(path.c_str(), &options, &model) == EDGE_OK, edge_last_error());
    return ModelHandle(model);
}

constexpr size_t kTokens = 100;

inline SessionHandle open_session(const ModelHandle& model) {
    edge_session* session = nullptr;
    check(edge_session_open(model.get(), &session) == EDGE_OK, edge_last_error());
    return SessionHandle(session);
}

// Of the tokens from `first` on, behind as many that the session has: a prompt in chunks, and single tokens.
inline std::vector<float> logits_from(size_t first, const SessionHandle& session) {
    constexpr size_t kSingle = 5;
    std::vector<int32_t> tokens(kTokens);
    for (size_t i = 0; i < kTokens; ++i) tokens[i] = static_cast<int32_t>(i * 97 % edge_test::kVocab);
    std::vector<float> logits((kTokens - first) * edge_test::kVocab);
    for (size_t at = first, n; at < kTokens; at += n) {
        n = at == first ? kTokens - kSingle - first : 1;
        float* rows = logits.data() + (at - first) * edge_test::kVocab;
        check(edge_session_feed(session.get(), tokens.data() + at, n, 1, rows) == EDGE_OK, edge_last_error());
    }
    return logits;
}
inline std::vector<float> logits_of(const ModelHandle& model) { return logits_from(0, open_session(model)); }

// Whether a device reads the artifact where it is mapped.
inline bool reads_file(edge::gpu::Device& device, const std::string& path) {
    const int file = open(path.c_str(), O_RDONLY);
    const bool reads = edge::gpu::can_share_file(device, file, 4096);
    close(file);
    return reads;
}

inline edge_memory estimate(const ModelHandle& model, int32_t level) {
    edge_memory memory{};
    memory.struct_size = sizeof memory;
    check(edge_model_estimate(model.get(), level, 0, 0, &memory) == EDGE_OK, edge_last_error());
    return memory;
}

// That a level maps of the file.
inline uint64_t file_bytes(const ModelHandle& model, int32_t level) {
    edge_level_info info{};
    info.struct_size = sizeof info;
    check(edge_model_level_info(model.get(), level, &info) == EDGE_OK, edge_last_error());
    return info.mapped_bytes;
}
