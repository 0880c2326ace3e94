// What the engine's native tests share: counted checks, and the exit status that follows from them.
#pragma once
#include <cmath>
#include <cstdio>
#include <string>

#include "errors.h"

inline int n_failures = 0;

inline void check(bool held, const std::string& what) {
    if (held) return;
    ++n_failures;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
}

// The status of the edge::Error that `work` throws, EDGE_OK when it throws none; `message` receives its text.
template <typename Work>
edge_status status_of(Work&& work, std::string* message = nullptr) {
    try {
        work();
    } catch (const edge::Error& error) {
        if (message) *message = error.message;
        return error.status;
    }
    return EDGE_OK;
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

inline int finish() {
    if (n_failures == 0) return 0;
    std::fprintf(stderr, "%d checks failed\n", n_failures);
    return 1;
}
