// How native tests load a level of a file and open sessions of it.
#pragma once
#include <cstdint>
#include <string>

#include "edge.h"
#include "engine_check.h"

inline edge_model* load_level(const std::string& path, int32_t level, int32_t n_threads, bool adaptive = false) {
    edge_load_options options{};
    options.struct_size = sizeof options;
    options.choose = 3;
    options.level = level;
    options.context_tokens = 64;
    options.n_threads = n_threads;
    options.adaptive = adaptive;
    edge_model* model = nullptr;
    check(edge_model_load(path.c_str(), &options, &model) == EDGE_OK, edge_last_error());
    return model;
}

inline edge_session* open_session(edge_model* model) {
    edge_session* session = nullptr;
    check(edge_session_open(model, &session) == EDGE_OK, edge_last_error());
    return session;
}
