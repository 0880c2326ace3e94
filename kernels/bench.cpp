#include "kernels/bench.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <new>
#include <thread>

#include "kernels/registry.h"

namespace edge {

#define EDGE_KERNEL(op, isa, function) op##_t function;
#include "kernels/kernels.inc"
#undef EDGE_KERNEL

namespace {

// Memory in huge pages where the system gives them, as weights of artifacts have it: with small ones a thread reads less.
template <typename T>
struct HugePages {
    using value_type = T;
    static constexpr size_t kPage = 2 << 20;
    T* allocate(size_t n) {
        const size_t bytes = (n * sizeof(T) + kPage - 1) / kPage * kPage;
        void* memory = std::aligned_alloc(kPage, bytes);
        if (!memory) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        madvise(memory, bytes, MADV_HUGEPAGE);  // a wish
#endif
        return static_cast<T*>(memory);
    }
    void deallocate(T* memory, size_t) { std::free(memory); }
    bool operator==(const HugePages&) const { return true; }
};

// One thing to measure. `pass` does the share of thread i out of n; bytes and macs count one pass of all threads.
struct Work {
    std::string shape;
    double bytes, macs;
    std::function<void(int i, int n)> pass;
};

double seconds_of(int n_threads, int64_t n_passes, const std::function<void(int, int)>& pass) {
    std::atomic<int> n_ready{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < n_threads; ++i) {
        threads.emplace_back([&, i] {
            ++n_ready;
            while (!go.load()) std::this_thread::yield();
            for (int64_t p = 0; p < n_passes; ++p) pass(i, n_threads);
        });
    }
    while (n_ready.load() < n_threads) std::this_thread::yield();
    const auto begin = std::chrono::steady_clock::now();
    go.store(true);
    for (std::thread& thread : threads) thread.join();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double best_seconds_per_pass(const BenchOptions& options, const Work& work) {
    int64_t n_passes = 1;
    double seconds = seconds_of(options.n_threads, 1, work.pass);
    while (seconds < options.seconds / 8 && n_passes < (int64_t{1} << 40)) {
        n_passes *= 4;
        seconds = seconds_of(options.n_threads, n_passes, work.pass);
    }
    n_passes = std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(n_passes) * options.seconds / 3 / seconds));
    double best = 1e300;
    for (int i = 0; i < 3; ++i) best = std::min(best, seconds_of(options.n_threads, n_passes, work.pass));
    return best / static_cast<double>(n_passes);
}

// The share of n_items that thread i out of n has.
int64_t share(int64_t n_items, int i, int n) { return n_items * i / n; }

// Everything the kernels read and write, allocated once. Speed does not depend on the values as long as they are finite.
struct Data {
    int64_t memory_bytes;
    int n_threads;
    std::vector<uint8_t, HugePages<uint8_t>> weights;
    std::vector<int8_t> codes;
    std::vector<float> floats, more, outputs;
    std::vector<int32_t> sums;
    alignas(16) int8_t codebook[16];

    static constexpr int kTokens = 128, kWidest = 1536, kKeys = 1024;

    explicit Data(const BenchOptions& options)
        : memory_bytes(std::max<int64_t>(options.memory_bytes, 4 << 20)), n_threads(options.n_threads),
          weights(static_cast<size_t>(memory_bytes) + 4096), codes(size_t{kTokens} * kWidest), floats(size_t{kTokens} * kWidest),
          more(size_t{kTokens} * kWidest), outputs(static_cast<size_t>(memory_bytes / 512) + size_t{kTokens} * kWidest + static_cast<size_t>(n_threads) * 32768),
          sums(size_t{kTokens} * 64) {
        uint32_t state = 1;
        const auto next = [&] { return state = state * 1664525u + 1013904223u, state >> 24; };
        // Bytes below 0x7c are finite as either half of a float16, too.
        for (uint8_t& byte : weights) byte = static_cast<uint8_t>(next() % 0x3c);
        for (int8_t& code : codes) code = static_cast<int8_t>(next() % 255 - 127);
        for (size_t i = 0; i < floats.size(); ++i) floats[i] = more[i] = static_cast<float>(next()) / 128.0f - 1.0f;
        for (int i = 0; i < 16; ++i) codebook[i] = static_cast<int8_t>(i * 4 - 30);
    }
    // The outputs and the work space of one thread.
    float* output(int i, int64_t n) { return outputs.data() + i * n; }
};

// The first bytes of data.weights as a panel of about `bytes`.
Panel panel_of(Data& data, int bits, int columns, int64_t bytes) {
    const int64_t tile_codes = int64_t{columns} * 2 * bits, tile_scales = int64_t{columns} / 32 * 32;
    const int64_t tiles = std::max<int64_t>(1, bytes / (tile_codes + tile_scales));
    return {data.weights.data(), reinterpret_cast<const uint16_t*>(data.weights.data() + tiles * tile_codes),
            bits <= 4 ? data.codebook : nullptr, static_cast<int32_t>(tiles * kTileRows), columns, 32};
}

Work matmul_work(matmul_t* kernel, Data& data, const Panel& w, int bits, int n_tokens) {
    const double bytes = static_cast<double>(w.rows) * w.columns * bits / 8 + static_cast<double>(w.rows) * panel_groups(w) * 2;
    const double macs = static_cast<double>(w.rows) * w.columns * n_tokens;
    const std::string shape = std::to_string(w.rows) + " x " + std::to_string(w.columns) + ", " + std::to_string(n_tokens) +
                              (n_tokens == 1 ? " token" : " tokens");
    return {shape, n_tokens == 1 ? bytes : 0.0, macs, [=, &data](int i, int n) {
                const Activations a = {data.codes.data(), data.floats.data(), data.sums.data(), (w.columns + 63) / 64 * 64, 64,
                                       w.columns, 32};
                kernel(w, a, 0, n_tokens, static_cast<int>(share(panel_tiles(w), i, n)),
                       static_cast<int>(share(panel_tiles(w), i + 1, n)), data.outputs.data(), w.rows, false);
            }};
}

std::vector<Work> matmul_works(matmul_t* kernel, Data& data, int bits) {
    std::vector<Work> works;
    for (const int64_t bytes : {data.memory_bytes, int64_t{300000} * data.n_threads}) {  // from memory; from the L2 caches
        works.push_back(matmul_work(kernel, data, panel_of(data, bits, Data::kWidest, bytes), bits, 1));
    }
    for (const int columns : {576, 1536}) {  // the two shapes of a small model's MLP
        Panel w = panel_of(data, bits, columns, 1 << 20);
        w.rows = 576 + 1536 - columns;
        works.push_back(matmul_work(kernel, data, w, bits, Data::kTokens));
    }
    return works;
}

std::vector<Work> works_of_matmul_q2(matmul_q2_t* kernel, Data& data) { return matmul_works(kernel, data, 2); }
std::vector<Work> works_of_matmul_q3(matmul_q3_t* kernel, Data& data) { return matmul_works(kernel, data, 3); }
std::vector<Work> works_of_matmul_q4(matmul_q4_t* kernel, Data& data) { return matmul_works(kernel, data, 4); }
std::vector<Work> works_of_matmul_q6(matmul_q6_t* kernel, Data& data) { return matmul_works(kernel, data, 6); }
std::vector<Work> works_of_matmul_q8(matmul_q8_t* kernel, Data& data) { return matmul_works(kernel, data, 8); }

std::vector<Work> works_of_quantize(quantize_t* kernel, Data& data) {
    constexpr int kRows = 16;
    return {{"1536 columns, group 32", data.n_threads * kRows * 1536 * 4.0, 0, [=, &data](int i, int) {
                 std::vector<int8_t> codes(kRows * 1536);
                 std::vector<int32_t> sums(kRows * 48);
                 Activations a = {codes.data(), data.output(i, 4096), sums.data(), 1536, 48, 1536, 32};
                 kernel(data.floats.data(), 1536, kRows, a);
             }}};
}

Work attention_work(attention_q8_t* kernel, Data& data, int bytes_per_value, int n_tokens) {
    constexpr int kQueries = 4, kDims = 64;
    const double macs = 2.0 * n_tokens * kQueries * Data::kKeys * kDims * data.n_threads;
    const double bytes = n_tokens == 1 ? 2.0 * Data::kKeys * kDims * bytes_per_value * data.n_threads : 0.0;
    const std::string tokens = std::to_string(n_tokens) + (n_tokens == 1 ? " token" : " tokens");
    return {"1024 keys of 64, 4 queries, " + tokens, bytes, macs, [=, &data](int i, int) {
                const uint16_t* scales = reinterpret_cast<const uint16_t*>(data.weights.data());
                const uint8_t* values = data.weights.data() + 4096;
                float* work = data.output(i, 32768);
                kernel({data.floats.data(), values, scales, values + Data::kKeys * kDims * bytes_per_value, scales, work,
                        work + 24576, kQueries * kDims, kQueries * kDims, 0.001f, n_tokens, kQueries, Data::kKeys - n_tokens + 1,
                        kDims, kDims});
            }};
}

std::vector<Work> attention_works(attention_q8_t* kernel, Data& data, int bytes_per_value) {
    return {attention_work(kernel, data, bytes_per_value, 1), attention_work(kernel, data, bytes_per_value, 16)};
}

std::vector<Work> works_of_attention_q8(attention_q8_t* kernel, Data& data) { return attention_works(kernel, data, 1); }
std::vector<Work> works_of_attention_f16(attention_f16_t* kernel, Data& data) { return attention_works(kernel, data, 2); }

// Ops on a few kilobytes: GB/s of their float inputs, from the first-level cache.
Work small_work(Data& data, const std::string& shape, int n_floats, std::function<void(const float* x, float* out)> run) {
    return {shape, data.n_threads * n_floats * 4.0, 0,
            [=, &data](int i, int) { run(data.floats.data(), data.output(i, 4096)); }};
}

std::vector<Work> works_of_rms_norm(rms_norm_t* kernel, Data& data) {
    return {small_work(data, "n 576", 576, [=](const float* x, float* out) { kernel(x, x + 576, 1e-5f, 576, out); })};
}
std::vector<Work> works_of_silu_mul(silu_mul_t* kernel, Data& data) {
    return {small_work(data, "n 1536", 2 * 1536, [=](const float* x, float* out) { kernel(out, x, 1536); })};
}
std::vector<Work> works_of_gelu_mul(gelu_mul_t* kernel, Data& data) {
    return {small_work(data, "n 1536", 2 * 1536, [=](const float* x, float* out) { kernel(out, x, 1536); })};
}
std::vector<Work> works_of_softcap(softcap_t* kernel, Data& data) {
    return {small_work(data, "n 1536", 1536, [=](const float*, float* out) { kernel(out, 30.0f, 1536); })};
}
std::vector<Work> works_of_rope(rope_t* kernel, Data& data) {
    return {small_work(data, "3 heads of 64", 192,
                       [=](const float* x, float* out) { kernel({x, x + 192, x + 256, out, 3 * 16, 3, 64, 16}); })};
}
std::vector<Work> works_of_merge_heads(merge_heads_t* kernel, Data& data) {
    return {small_work(data, "9 heads of 64", 576, [=](const float* x, float* out) { kernel(x, 9, 64, 16, out); })};
}
std::vector<Work> works_of_embed_row(embed_row_t* kernel, Data& data) {
    return {small_work(data, "576 columns", 144, [=, &data](const float*, float* out) {
        kernel(panel_of(data, 8, 576, 1 << 20), 8, 77, 1.0f, out);
    })};
}
std::vector<Work> works_of_store_q8(store_q8_t* kernel, Data& data) {
    return {small_work(data, "n 64", 64, [=](const float* x, float*) {
        int8_t codes[64];
        uint16_t scale;
        kernel(x, 64, codes, &scale);
    })};
}
std::vector<Work> works_of_store_f16(store_f16_t* kernel, Data& data) {
    return {small_work(data, "n 64", 64, [=](const float* x, float*) {
        uint16_t halves[64];
        kernel(x, 64, halves);
    })};
}

std::vector<Work> works_of_dot_f16(dot_f16_t* kernel, Data& data) {
    return {small_work(data, "24 rows of 768", 768, [=, &data](const float* x, float* out) {
        kernel(reinterpret_cast<const uint16_t*>(data.weights.data()), x, 24, 768, out);
    })};
}
std::vector<Work> works_of_conv_silu(conv_silu_t* kernel, Data& data) {
    return {small_work(data, "8 heads of 64, 4 taps, 1 token", 512, [=](const float* x, float* out) {
        kernel({x, x, out, out + 2048, 512, 512, 1, 4, 8, 64, 16, 0, 32});
    })};
}
std::vector<Work> works_of_ssm_step(ssm_step_t* kernel, Data& data) {
    return {small_work(data, "24 heads", 24, [=](const float* x, float* out) {
        kernel(out, x, x + 24, 0.0f, 1.0f, 24, out + 24);
    })};
}
std::vector<Work> works_of_ssm_scan(ssm_scan_t* kernel, Data& data) {
    constexpr int kDims = 64, kStates = 128;
    std::vector<Work> works;
    for (const int n_tokens : {1, 16}) {
        const double macs = 2.0 * n_tokens * kDims * kStates * data.n_threads;
        works.push_back({"head of 64, 128 states, " + std::to_string(n_tokens) + " tokens", 0, macs, [=, &data](int i, int) {
                             const float* x = data.floats.data();
                             float* state = data.output(i, 16384);
                             kernel({x, x, x, x, x, state, state + 8192, kDims, kStates, 1, kDims, 1.0f, n_tokens, kStates, kDims});
                         }});
    }
    return works;
}

std::vector<Work> works_of_dot_peak(dot_peak_t* kernel, Data& data) {
    constexpr int64_t kRounds = 1000;
    int32_t sink = 1;
    const double macs = static_cast<double>(kernel(kRounds, &sink)) * data.n_threads;
    return {{"registers only", 0, macs, [=](int i, int) {
                 int32_t value = i;
                 kernel(kRounds, &value);
             }}};
}

// A thread's share as kStreams stretches side by side, in steps of kWords words, fetched kAhead bytes before: what reads most
// differs between processors.
template <int kStreams, int kWords, int kAhead>
void stream_read(const Data& data, int64_t bytes, int i, int n) {
    const uint64_t* words = reinterpret_cast<const uint64_t*>(data.weights.data());
    constexpr int kStep = kWords * 8;
    const int64_t begin = share(bytes / kStep, i, n), length = (share(bytes / kStep, i + 1, n) - begin) / kStreams;
    uint64_t sums[kWords] = {};
    for (int64_t block = begin; block < begin + length; ++block) {
        for (int s = 0; s < kStreams; ++s) {
            const uint64_t* from = words + (block + s * length) * kWords;
            if (kAhead) {
                for (int k = 0; k < kWords; k += 8) __builtin_prefetch(from + kAhead / 8 + k);
            }
            for (int k = 0; k < kWords; ++k) sums[k] += from[k];
        }
    }
    for (uint64_t& sum : sums) __asm__ volatile("" : "+r"(sum));  // the sums are used
}

constexpr auto kWaysToRead = {stream_read<1, 16, 0>,    stream_read<4, 16, 0>,    stream_read<1, 16, 8192>, stream_read<4, 16, 8192>,
                              stream_read<1, 32, 1024>, stream_read<1, 32, 4096>, stream_read<4, 32, 1024>};

void measure(const BenchOptions& options, const std::string& op, Isa isa, const std::string& function,
             const std::vector<Work>& works, std::vector<BenchResult>& out) {
    for (const Work& work : works) {
        const double per_s = 1e-9 / best_seconds_per_pass(options, work);
        out.push_back({op, isa, function, work.shape, work.bytes * per_s, work.macs * per_s});
    }
}

bool is_wanted(const BenchOptions& options, const std::string& op, Isa isa) {
    return (options.op.empty() || options.op == op) && (supported_isas() & isa_bit(isa)) != 0;
}

}  // namespace

std::vector<BenchResult> bench_kernels(const BenchOptions& options) {
    Data data(options);
    std::vector<BenchResult> results;
    for (const int64_t bytes : {data.memory_bytes, int64_t{300000} * options.n_threads}) {
        if (!is_wanted(options, "stream_read", Isa::reference)) break;
        std::vector<BenchResult> ways;
        for (const auto way : kWaysToRead) {
            measure(options, "stream_read", Isa::reference, "stream_read",
                    {{std::to_string(bytes) + " bytes", static_cast<double>(bytes), 0,
                      [&, way](int i, int n) { way(data, bytes, i, n); }}},
                    ways);
        }
        results.push_back(*std::max_element(ways.begin(), ways.end(),
                                            [](const auto& x, const auto& y) { return x.gb_per_s < y.gb_per_s; }));
    }
    const auto run = [&](bool is_probe) {
#define EDGE_KERNEL(op, isa, function)                                                        \
    if ((std::string(#op) == "dot_peak") == is_probe && is_wanted(options, #op, Isa::isa)) { \
        measure(options, #op, Isa::isa, #function, works_of_##op(function, data), results);   \
    }
#include "kernels/kernels.inc"
#undef EDGE_KERNEL
    };
    run(true);
    run(false);
    return results;
}

}  // namespace edge
