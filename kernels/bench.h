// Speed of every kernel that this machine can run, beside probes of what the machine can do at most.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/isa.h"

namespace edge {

struct BenchOptions {
    int n_threads = 1;
    double seconds = 0.1;             // about, per figure; the best of three runs counts
    int64_t memory_bytes = 75000000;  // weights read by the matvec and the stream probe that do not fit the caches
    std::string op;                   // empty: all
};

struct BenchResult {
    std::string op;        // as in kernels.inc, or "stream_read" (the probe of memory)
    Isa isa;
    std::string function;
    std::string shape;     // what ran, e.g. "86801 x 1536, 1 token"
    double gb_per_s;       // bytes of weights, cache or input read; 0 where that is no measure
    double gmac_per_s;     // multiply-accumulates; 0 likewise
};

// Probes first (stream_read, dot_peak), then each kernel in the order of kernels.inc. Shares of what is possible: a matvec's
// gb_per_s over stream_read's of the same size, a block matmul's gmac_per_s over dot_peak's of the same isa.
std::vector<BenchResult> bench_kernels(const BenchOptions& options);

}  // namespace edge
