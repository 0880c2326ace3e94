#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>

#include "program.h"

namespace edge::run {
namespace {

double parse_number(const std::string& name, const std::string& text, double low, double high) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !(value >= low && value <= high)) {
        throw UsageError(name + " is `" + text + "`, expected a number from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return value;
}

int64_t parse_integer(const std::string& name, const std::string& text, int64_t low, int64_t high) {
    char* end = nullptr;
    const long long value = std::strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || value < low || value > high) {
        throw UsageError(name + " is `" + text + "`, expected an integer from " + std::to_string(low) + " to " +
                         std::to_string(high));
    }
    return value;
}

int32_t parse_verify(const std::string& text) {
    if (text == "lazy") return EDGE_VERIFY_LAZY;
    if (text == "eager") return EDGE_VERIFY_EAGER;
    if (text == "off") return EDGE_VERIFY_OFF;
    throw UsageError("--verify is `" + text + "`, expected lazy, eager or off");
}

int32_t parse_backend(const std::string& text) {
    if (text == "cpu") return EDGE_BACKEND_CPU;
    if (text == "auto") return EDGE_BACKEND_AUTO;
    if (text == "opencl") return EDGE_BACKEND_OPENCL;
    if (text == "cuda") return EDGE_BACKEND_CUDA;
    throw UsageError("--backend is `" + text + "`, expected auto, cpu, opencl or cuda");
}

int32_t parse_decode_backend(const std::string& text) {
    if (text == "cpu") return EDGE_DECODE_CPU;
    if (text == "opencl") return EDGE_DECODE_OPENCL;
    if (text == "cuda") return EDGE_DECODE_CUDA;
    throw UsageError("--decode-backend is `" + text + "`, expected cpu, opencl or cuda");
}

using Setter = std::function<void(const std::string& name, const std::string& value)>;

// Option name -> what it sets.
std::map<std::string, Setter> valued_options(Options& o) {
    constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
    const auto integer = [](int32_t& field, int64_t low) {
        return [&field, low](const std::string& name, const std::string& value) {
            field = static_cast<int32_t>(parse_integer(name, value, low, kMax));
        };
    };
    const auto number = [](float& field, double high) {
        return [&field, high](const std::string& name, const std::string& value) {
            field = static_cast<float>(parse_number(name, value, 0, high));
        };
    };
    const auto words = [](std::string& field) {
        return [&field](const std::string&, const std::string& value) { field = value; };
    };
    const auto choose = [&o](int32_t kind, const std::string& name) {
        if (o.load.choose != 0) throw UsageError(name + " was given with another choice\nhint: give one of --rate, --budget, --level");
        o.load.choose = kind;
    };
    return {
        {"--rate", [&o, choose](auto& n, auto& v) { choose(1, n), o.load.rate = parse_number(n, v, 0, 1); }},
        {"--budget", [&o, choose](auto& n, auto& v) { choose(2, n), o.load.budget_bytes = parse_bytes(v); }},
        {"--level", [&o, choose](auto& n, auto& v) { choose(3, n), o.load.level = static_cast<int32_t>(parse_integer(n, v, 0, kMax)); }},
        {"--min-level", integer(o.load.min_level, 0)},
        {"--context", integer(o.load.context_tokens, 1)},
        {"--threads", integer(o.load.n_threads, 1)},
        {"--kv-bits", integer(o.load.kv_bits, 8)},
        {"--chunk", integer(o.load.chunk_tokens, 1)},
        {"--verify", [&o](auto&, auto& v) { o.load.verify = parse_verify(v); }},
        {"--backend", [&o](auto&, auto& v) { o.load.backend = parse_backend(v); }},
        {"--decode-backend", [&o](auto&, auto& v) { o.load.decode_backend = parse_decode_backend(v); }},
        {"--prompt", words(o.prompt)},
        {"--system", words(o.system)},
        {"--stop", [&o](auto&, auto& v) { o.stops.push_back(v); }},
        {"--max-tokens", integer(o.max_tokens, 0)},
        {"--temperature", number(o.sampling.temperature, 1e6)},
        {"--top-k", integer(o.sampling.top_k, 0)},
        {"--top-p", number(o.sampling.top_p, 1)},
        {"--min-p", number(o.sampling.min_p, 1)},
        {"--repetition-penalty", number(o.sampling.repetition_penalty, 1e6)},
        {"--seed", [&o](auto& n, auto& v) { o.sampling.seed = static_cast<uint64_t>(parse_integer(n, v, 0, INT64_MAX)); }},
        {"--prompt-tokens", integer(o.prompt_tokens, 1)},
        {"--decode-tokens", integer(o.decode_tokens, 1)},
        {"--op", words(o.op)},
        {"--bytes", [&o](auto&, auto& v) { o.probe_bytes = parse_bytes(v); }},
        {"--runs", integer(o.runs, 1)},
        {"--start", integer(o.start_tokens, 0)},
    };
}

// Options without a value -> what they do.
std::map<std::string, std::function<void()>> flag_options(Options& o) {
    return {
        {"--json", [&o] { o.json = true; }},
        {"--lock", [&o] { o.load.lock_pages = 1; }},
        {"--prefault", [&o] { o.load.prefault = 1; }},
        {"--huge-pages", [&o] { o.load.huge_pages = 1; }},
        {"--pin", [&o] { o.load.pin_threads = 1; }},
        {"--adaptive", [&o] { o.load.adaptive = 1; }},
        {"--all-levels", [&o] { o.all_levels = true; }},
        {"--no-probe", [&o] { o.no_probe = true; }},
        {"--ops", [&o] { o.ops = true; }},
        {"--kernels", [&o] { o.kernels = true; }},
    };
}

}  // namespace

uint64_t parse_bytes(const std::string& text) {
    static const std::map<std::string, double> units = {
        {"", 1},         {"B", 1},        {"KB", 1e3},         {"MB", 1e6},         {"GB", 1e9},
        {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
    };
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    while (*end == ' ') ++end;
    const auto unit = units.find(end);
    if (end == text.c_str() || unit == units.end() || !(value >= 0 && value * unit->second < 9e18)) {
        throw UsageError("`" + text + "` is no number of bytes, expected for example 80MB (80000000) or 80MiB (83886080)");
    }
    return static_cast<uint64_t>(std::floor(value * unit->second));
}

Options parse_options(int n_arguments, char** arguments) {
    Options options;
    options.load.struct_size = sizeof(edge_load_options);
    options.sampling.struct_size = sizeof(edge_sampling);
    if (n_arguments < 2) throw UsageError("no command was given\nhint: edge-run --help");
    options.command = arguments[1];
    const auto valued = valued_options(options);
    const auto flags = flag_options(options);
    for (int i = 2; i < n_arguments; ++i) {
        std::string name = arguments[i], value;
        const size_t equals = name.rfind("--", 0) == 0 ? name.find('=') : std::string::npos;
        const bool attached = equals != std::string::npos;
        if (attached) value = name.substr(equals + 1), name.resize(equals);
        if (const auto found = valued.find(name); found != valued.end()) {
            if (!attached && ++i >= n_arguments) throw UsageError(name + " needs a value");
            found->second(name, attached ? value : arguments[i]);
        } else if (const auto flag = flags.find(name); flag != flags.end() && !attached) {
            flag->second();
        } else if (name.rfind("-", 0) == 0 || !options.artifact.empty()) {
            throw UsageError("`" + name + "` is not understood\nhint: edge-run --help");
        } else {
            options.artifact = name;
        }
    }
    const bool needs_none = options.command == "selftest" || (options.command == "bench" && options.kernels);
    if (options.artifact.empty() && !needs_none) {
        throw UsageError("no artifact was given\nhint: edge-run " + options.command + " model.edge");
    }
    return options;
}

}  // namespace edge::run
