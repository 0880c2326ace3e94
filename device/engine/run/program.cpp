#include "program.h"

#include <cstdio>
#include <fstream>

namespace edge::run {

void check(edge_status status) {
    if (status != EDGE_OK) throw Failure(edge_last_error());
}

ModelHandle load_model(const Options& options) {
    edge_model* model = nullptr;
    check(edge_model_load(options.artifact.c_str(), &options.load, &model));
    std::fprintf(stderr, "%s\n", edge_model_level_reason(model));
    return ModelHandle(model);
}

SessionHandle open_session(const ModelHandle& model, const edge_sampling& sampling) {
    edge_session* session = nullptr;
    check(edge_session_open(model.get(), &session));
    SessionHandle handle(session);
    check(edge_session_set_sampling(session, &sampling));
    return handle;
}

std::vector<int32_t> tokenize(const ModelHandle& model, const std::string& text, bool special, bool add_bos) {
    std::vector<int32_t> tokens(text.size() + 8);  // no text has more tokens than bytes, but for a first one
    size_t n_tokens = 0;
    check(edge_tokenize(model.get(), text.data(), text.size(), special, add_bos, tokens.data(), tokens.size(), &n_tokens));
    tokens.resize(n_tokens);
    return tokens;
}

uint64_t peak_rss_bytes() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.rfind("VmHWM:", 0) == 0) return std::stoull(line.substr(6)) * 1024;
    }
    return 0;
}

}  // namespace edge::run
