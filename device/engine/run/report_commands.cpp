// bench, info and selftest.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "kernels/bench.h"
#include "kernels/registry.h"
#include "program.h"
#include "sha256.h"
#include "threads.h"

namespace edge::run {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const size_t n = values.size();
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

edge_level_info level_info(const ModelHandle& model, int32_t level) {
    edge_level_info info{};
    info.struct_size = sizeof info;
    check(edge_model_level_info(model.get(), level, &info));
    return info;
}

edge_memory estimate(const ModelHandle& model, int32_t level) {
    edge_memory memory{};
    memory.struct_size = sizeof memory;
    check(edge_model_estimate(model.get(), level, 0, 0, &memory));
    return memory;
}

// FNV-1a of the logits' bits: equal on every machine for the same artifact, level and tokens.
std::string fingerprint(const std::vector<float>& logits) {
    uint64_t hash = 0xcbf29ce484222325;
    const auto* bytes = reinterpret_cast<const unsigned char*>(logits.data());
    for (size_t i = 0; i < logits.size() * sizeof(float); ++i) hash = (hash ^ bytes[i]) * 0x100000001b3;
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
    return text;
}

// Fixed tokens, so that runs compare.
std::vector<int32_t> fixed_tokens(int32_t n, int32_t vocab_size) {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>((i * int64_t{7919} + 13) % vocab_size));
    return tokens;
}

struct Speed {
    std::vector<double> prefill, decode;  // seconds of each run
    double first_token_s;                 // from the beginning of loading to the first logits of the prompt
    std::string fingerprint;
};

Speed measure(const ModelHandle& model, const Options& options, Clock::time_point load_begin) {
    const SessionHandle session = open_session(model, options.sampling);
    const int32_t vocab_size = edge_model_vocab_size(model.get());
    const auto n_start = static_cast<size_t>(options.start_tokens), n_prompt = static_cast<size_t>(options.prompt_tokens);
    const auto tokens = fixed_tokens(options.start_tokens + options.prompt_tokens + options.decode_tokens, vocab_size);
    std::vector<float> logits(static_cast<size_t>(vocab_size));
    std::vector<double> prefill, decode;
    double first_token_s = 0;
    if (n_start > 0) check(edge_session_feed(session.get(), tokens.data(), n_start, 0, nullptr));
    for (int run = -1; run < options.runs; ++run) {  // the first one warms up
        check(edge_session_rewind(session.get(), options.start_tokens));
        auto begin = Clock::now();
        check(edge_session_feed(session.get(), tokens.data() + n_start, n_prompt, 0, logits.data()));
        if (run >= 0) prefill.push_back(since(begin));
        if (run < 0) first_token_s = since(load_begin);
        begin = Clock::now();
        for (size_t i = n_start + n_prompt; i < tokens.size(); ++i) {
            float* wanted = i + 1 < tokens.size() ? nullptr : logits.data();  // they are there for sampling without a copy
            check(edge_session_feed(session.get(), &tokens[i], 1, 0, wanted));
        }
        if (run >= 0) decode.push_back(since(begin));
    }
    return {prefill, decode, first_token_s, fingerprint(logits)};
}

// Where the time went since the last edge_session_time_ops, by kind of operation; `seconds`: of the whole.
Json op_times(const SessionHandle& session, int32_t n_tokens, double seconds) {
    Json ops = Json::array();
    for (int32_t i = 0; i < edge_n_ops(); ++i) {
        edge_op_time time{};
        time.struct_size = sizeof time;
        check(edge_session_op_time(session.get(), i, &time));
        const double op_seconds = static_cast<double>(time.nanoseconds) / 1e9;
        ops.push_back({{"op", time.op}, {"calls", time.n_calls}, {"seconds", op_seconds}, {"bytes", time.bytes},
                       {"gb_per_s", time.bytes && op_seconds > 0 ? Json(static_cast<double>(time.bytes) / op_seconds / 1e9) : Json()}});
    }
    return {{"tokens", n_tokens}, {"seconds", seconds}, {"ops", ops}};
}

// One run of prompt and decode, timed operation by operation.
Json measure_ops(const ModelHandle& model, const Options& options) {
    const SessionHandle session = open_session(model, options.sampling);
    const auto n_start = static_cast<size_t>(options.start_tokens), n_prompt = static_cast<size_t>(options.prompt_tokens);
    const auto tokens = fixed_tokens(options.start_tokens + options.prompt_tokens + options.decode_tokens,
                                     edge_model_vocab_size(model.get()));
    std::vector<float> logits(static_cast<size_t>(edge_model_vocab_size(model.get())));  // a GPU is done when they are there
    if (n_start > 0) check(edge_session_feed(session.get(), tokens.data(), n_start, 0, nullptr));
    check(edge_session_time_ops(session.get(), 1));
    auto begin = Clock::now();
    check(edge_session_feed(session.get(), tokens.data() + n_start, n_prompt, 0, logits.data()));
    const Json prefill = op_times(session, options.prompt_tokens, since(begin));
    check(edge_session_time_ops(session.get(), 1));
    begin = Clock::now();
    for (size_t i = n_start + n_prompt; i < tokens.size(); ++i) {
        check(edge_session_feed(session.get(), &tokens[i], 1, 0, i + 1 < tokens.size() ? nullptr : logits.data()));
    }
    return {{"prefill", prefill}, {"decode", op_times(session, options.decode_tokens, since(begin))}};
}

void print_ops(const char* what, const Json& times) {
    const double tokens = times["tokens"].get<double>(), whole = times["seconds"].get<double>();
    double covered = 0;
    std::printf("  %s, microseconds per token\n", what);
    const auto line = [&](const char* op, double seconds, const Json& gb_per_s) {
        std::printf("    %-10s %9.1f  %4.1f %%", op, seconds / tokens * 1e6, 100 * seconds / whole);
        if (gb_per_s.is_number()) std::printf("  %6.1f GB/s", gb_per_s.get<double>());
        std::printf("\n");
    };
    for (const Json& op : times["ops"]) {
        if (op["calls"] == 0) continue;
        covered += op["seconds"].get<double>();
        line(op["op"].get<std::string>().c_str(), op["seconds"].get<double>(), op["gb_per_s"]);
    }
    line("other", whole - covered, Json());
}

double read_bandwidth(int n_threads, uint64_t bytes) {
    BenchOptions options;
    options.n_threads = n_threads;
    options.memory_bytes = static_cast<int64_t>(bytes);
    options.op = "stream_read";
    for (const BenchResult& result : bench_kernels(options)) {
        if (result.op == "stream_read") return result.gb_per_s;  // the first one reads memory, the next the caches
    }
    return 0;
}

edge_backend_info backend_info(const ModelHandle& model) {
    edge_backend_info info{};
    info.struct_size = sizeof info;
    check(edge_model_backend(model.get(), &info));
    return info;
}

Json bench_level(const Options& options) {
    const auto begin = Clock::now();
    const ModelHandle model = load_model(options);
    const double load_s = since(begin);
    const edge_level_info info = level_info(model, edge_model_level(model.get()));
    const Speed speed = measure(model, options, begin);
    const uint64_t peak_bytes = peak_rss_bytes();  // before the probe takes memory of its own
    const double decode_tokens_per_s = options.decode_tokens / median(speed.decode);
    const int32_t n_threads = edge_model_n_threads(model.get());
    const uint64_t token_bytes = edge_model_token_bytes(model.get());
    const double gb_per_s = decode_tokens_per_s * static_cast<double>(token_bytes) / 1e9;
    const double bandwidth = options.no_probe ? 0 : read_bandwidth(n_threads, token_bytes);
    ThreadPool pool(n_threads, options.load.pin_threads != 0);
    Json row = {{"level", info.index},
                {"rate", info.rate},
                {"mapped_bytes", info.mapped_bytes},
                {"total_bytes", estimate(model, info.index).total_bytes},
                {"backend", backend_info(model).name},
                {"decode_backend", backend_info(model).decode_name},
                {"device", backend_info(model).device},
                {"compiled", backend_info(model).n_compiled},
                {"isa", edge_isa()},
                {"threads", n_threads},
                {"context", edge_model_context_tokens(model.get())},
                {"position", options.start_tokens},
                {"prompt_tokens", options.prompt_tokens},
                {"decode_tokens", options.decode_tokens},
                {"token_bytes", token_bytes},
                {"burst_us", measure_burst_us(pool)},
                {"load_ms", load_s * 1e3},
                {"first_token_ms", speed.first_token_s * 1e3},
                {"peak_rss_bytes", peak_bytes},
                {"prefill_seconds", speed.prefill},
                {"decode_seconds", speed.decode},
                {"prefill_tokens_per_s", options.prompt_tokens / median(speed.prefill)},
                {"decode_tokens_per_s", decode_tokens_per_s},
                {"gb_per_s", gb_per_s},
                {"logits_hash", speed.fingerprint}};
    if (options.ops) row["ops"] = measure_ops(model, options);
    if (bandwidth > 0) row.update({{"read_gb_per_s", bandwidth}, {"share_of_read", gb_per_s / bandwidth}});
    return row;
}

std::string short_number(double value, const char* format) {
    char text[32];
    std::snprintf(text, sizeof text, format, value);
    return std::isnan(value) ? "-" : text;
}

Json measured(double value) { return std::isnan(value) ? Json() : Json(value); }

// Every kernel that this machine runs, beside probes of what it can do at most.
int bench_all_kernels(const Options& options) {
    BenchOptions probe;
    probe.n_threads = options.load.n_threads ? options.load.n_threads : usable_cores();
    probe.op = options.op;
    if (options.probe_bytes) probe.memory_bytes = static_cast<int64_t>(options.probe_bytes);
    Json rows = Json::array();
    const std::vector<BenchResult> results = bench_kernels(probe);
    if (results.empty()) throw UsageError("--op is `" + probe.op + "`, expected an op of kernels.inc, or stream_read\nhint: edge-run bench --kernels");
    for (const BenchResult& r : results) {
        rows.push_back({{"op", r.op}, {"isa", isa_text(r.isa)}, {"function", r.function}, {"shape", r.shape},
                        {"gb_per_s", r.gb_per_s}, {"gmac_per_s", r.gmac_per_s}});
        if (options.json) continue;
        std::printf("%-14s %-11s %-34s %8.1f GB/s %8.1f GMAC/s\n", r.op.c_str(), isa_text(r.isa), r.shape.c_str(), r.gb_per_s,
                    r.gmac_per_s);
        std::fflush(stdout);
    }
    if (options.json) std::cout << Json{{"threads", probe.n_threads}, {"kernels", rows}}.dump() << "\n";
    return 0;
}

}  // namespace

int run_bench(const Options& options) {
    if (options.kernels) return bench_all_kernels(options);
    Options each = options;
    Json rows = Json::array();
    int32_t n_levels = 1;
    if (options.all_levels) {
        const ModelHandle model = load_model(options);
        while (n_levels < edge_model_n_levels(model.get()) && level_info(model, n_levels).available) ++n_levels;
        each.load.choose = 3;
    }
    for (int32_t k = 0; k < n_levels; ++k) {
        if (options.all_levels) each.load.level = k;
        rows.push_back(bench_level(each));
        const Json& row = rows.back();
        if (options.json) continue;
        std::printf("level %d  rate %.3f  %7.1f MB  prefill %8.1f t/s  decode %7.1f t/s  %5.1f GB/s  %3.0f %% of read  %s  %s x%d\n",
                    row["level"].get<int>(), row["rate"].get<double>(), row["mapped_bytes"].get<double>() / 1e6,
                    row["prefill_tokens_per_s"].get<double>(), row["decode_tokens_per_s"].get<double>(),
                    row["gb_per_s"].get<double>(), 100 * row.value("share_of_read", 0.0),
                    row["logits_hash"].get<std::string>().c_str(), edge_isa(), row["threads"].get<int>());
        if (options.ops) print_ops("prefill", row["ops"]["prefill"]), print_ops("decode", row["ops"]["decode"]);
        std::fflush(stdout);
    }
    if (options.json) std::cout << Json{{"levels", rows}}.dump() << "\n";
    return 0;
}

int run_info(const Options& options) {
    Options smallest = options;
    smallest.load.choose = 3;
    smallest.load.level = 0;
    smallest.load.verify = EDGE_VERIFY_OFF;
    edge_model* raw = nullptr;
    check(edge_model_load(options.artifact.c_str(), &smallest.load, &raw));
    const ModelHandle model(raw);
    size_t n_bytes = 0;
    const char* metadata = edge_model_metadata(raw, &n_bytes);
    const Json edge = Json::parse(metadata, metadata + n_bytes);
    Json levels = Json::array();
    for (int32_t k = 0; k < edge_model_n_levels(raw); ++k) {
        const edge_level_info info = level_info(model, k);
        levels.push_back({{"index", k}, {"rate", info.rate}, {"mapped_bytes", info.mapped_bytes}, {"file_bytes", info.file_bytes},
                          {"ppl", measured(info.perplexity)}, {"kl", measured(info.kl)},
                          {"gave_up", edge["levels"][static_cast<size_t>(k)].value("gave_up", Json())},
                          {"available", info.available != 0}, {"total_bytes", estimate(model, k).total_bytes}});
    }
    const int32_t context = edge_model_context_tokens(raw);
    if (options.json) {
        std::cout << Json{{"name", edge["model"]["name"]}, {"context", context}, {"levels", levels}}.dump(
                         -1, ' ', false, Json::error_handler_t::replace)
                  << "\n";
        return 0;
    }
    std::printf("%s\nlevel  rate   mapped MB  file MB  all in MB  perplexity  kl\n",
                edge["model"]["name"].get<std::string>().c_str());
    for (int32_t k = 0; k < edge_model_n_levels(raw); ++k) {
        const edge_level_info info = level_info(model, k);
        std::printf("%5d  %.3f  %9.1f  %7.1f  %9.1f  %10s  %s%s\n", k, info.rate, static_cast<double>(info.mapped_bytes) / 1e6,
                    static_cast<double>(info.file_bytes) / 1e6, static_cast<double>(estimate(model, k).total_bytes) / 1e6,
                    short_number(info.perplexity, "%.2f").c_str(), short_number(info.kl, "%.4f").c_str(),
                    info.available ? "" : "  (not in this file)");
    }
    std::fprintf(stderr, "\"all in\" is what a run needs at context %d\n", context);
    return 0;
}

int run_selftest(const Options& options) {
    Json report = {{"version", edge_version()}, {"isa", edge_isa()}, {"backends", Json::array()}};
    std::istringstream backends(EDGE_BACKENDS);
    for (std::string name; backends >> name;) report["backends"].push_back(name);
    if (*edge_isa() == '\0') throw Failure(edge_last_error());
    for (const KernelInfo& kernel : list_kernels()) {
        if (kernel.chosen) report["kernels"][kernel.op] = kernel.function;
    }
    Sha256 fast, plain(true);
    const std::string data(100'003, 'e');
    fast.update(data.data(), data.size());
    plain.update(data.data(), data.size());
    if (fast.finish() != plain.finish()) throw Failure("SHA-256 instructions and plain code disagree on this machine");
    if (!options.artifact.empty()) {
        std::set<std::string> hashes;
        const std::string best = isa_name();
        for (const std::string& isa : {std::string("reference"), best}) {
            std::string error;
            if (!select_isa(isa, &error)) throw Failure(error);
            const ModelHandle model = load_model(options);
            check(edge_model_verify(model.get()));
            const SessionHandle session = open_session(model, options.sampling);
            const int32_t vocab_size = edge_model_vocab_size(model.get());
            const auto tokens = fixed_tokens(std::min(24, edge_model_context_tokens(model.get())), vocab_size);
            std::vector<float> logits(static_cast<size_t>(vocab_size));
            check(edge_session_feed(session.get(), tokens.data(), tokens.size(), 0, logits.data()));
            hashes.insert(fingerprint(logits));
        }
        if (hashes.size() != 1) throw Failure("the " + best + " kernels and the reference disagree on this machine");
        report["logits_hash"] = *hashes.begin();
    }
    if (options.json) {
        std::cout << report.dump() << "\n";
        return 0;
    }
    std::printf("edge-run %s, kernels for %s, backends %s\n", edge_version(), edge_isa(), EDGE_BACKENDS);
    for (const auto& [op, function] : report["kernels"].items()) {
        std::printf("  %-14s %s\n", op.c_str(), function.get<std::string>().c_str());
    }
    if (!options.artifact.empty()) {
        std::printf("hashes hold; logits equal the reference to the bit: %s\n", report["logits_hash"].get<std::string>().c_str());
    }
    return 0;
}

}  // namespace edge::run
