// GPUs against the CPU: logits; a self-test that refuses a device that computes wrongly, whichever kernel it is; memory that goes
// back. A backend without a device is skipped, with a line that says so, unless EDGE_REQUIRE_OPENCL or EDGE_REQUIRE_CUDA is set.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "edge.h"
#include "engine_check.h"
#include "gpu/device.h"
#include "gpu/kernel_source.h"
#include "small_artifact.h"

using edge::gpu::open_device;

namespace {

bool is_pocl(const edge::gpu::Device& device) { return contains(device.info().driver, "PoCL"); }

struct Fault {
    const char* kernel;  // that the refusal must name
    const char *from, *to;
};

// One wrong step in each kernel's own text.
constexpr Fault kFaults[] = {
    {"edge_embed", "(float)value * scale * factor", "(float)value * scale"},
    {"edge_matvec", "(ones & 0x01010101u) << 2", "(ones & 0x01010101u) << 1"},
    {"edge_embed", "(codes | 0x80808080u) - 0x20202020u", "(codes | 0x80808080u) - 0x21202020u"},
    {"edge_matmul", "acc[k] = FMA((float)sum[k], scale * a_scale, acc[k])", "acc[k] = (float)sum[k] * scale * a_scale"},
    {"edge_normalize", "y[c] * inverse * vectors[post_norm + c]", "y[c] * vectors[post_norm + c]"},
    {"edge_add_bias", "row[c] += vectors[own_bias + c]", "row[c] -= vectors[own_bias + c]"},
    {"edge_activate", "-0.071354816f", "0.071354816f"},
    {"edge_merge", "run / n_heads * quantum + s % quantum", "run / n_heads * quantum"},
    {"edge_store", "words[w * 16 + position % 16] = packed", "words[w * 16 + position % 8] = packed"},
    {"edge_attention_q8", "most / 255.0f, acc[c] * factor", "most / 255.0f, acc[c]"},
    {"edge_attention_f16", "vo + c] = sum * inverse", "vo + c] = sum"},
    {"edge_softcap_rows", "x[i] = edge_softcap(x[i], cap)", "x[i] = cap"},
    {"edge_steps", "(real)2 * (s * series)", "(real)1 * (s * series)"},
    {"edge_conv", "own[(wide)i * n_rows] = window[i]", "own[(wide)i * n_rows] = window[0]"},
    {"edge_scan", "b + n_groups * n_states", "b + n_states"},
    {"edge_gate", "own[i] * inverse * vectors[gain + first + i]", "own[i] * inverse * vectors[gain + i]"},
    {"edge_choose", "value == other && id < other_id", "value == other && id > other_id"},
    {"edge_choose", "if (own_id == id) ++next", "if (own_id == id) next += 2"},
};

void test_faults() {
    for (const Fault& fault : kFaults) {
        edge::gpu::set_source_fault(fault.from, fault.to, fault.kernel);
        std::string message;
        const edge_status status = status_of([] { open_device(EDGE_BACKEND_OPENCL, false); }, &message);
        check(status == EDGE_NO_DEVICE, std::string(fault.kernel) + " was not refused");
        check(contains(message, std::string(fault.kernel) + " gives"), std::string("the refusal names ") + fault.kernel + ": " + message);
    }
    edge::gpu::set_source_fault("", "", "");
    edge::gpu::set_source_fault("KERNEL edge_embed", "KERNEL edge_embed oops", "");
    std::string message;
    status_of([] { open_device(EDGE_BACKEND_OPENCL, false); }, &message);
    check(contains(message, "refuses the kernels"), "a source that does not compile: " + message);
    edge::gpu::set_source_fault("", "", "");
}

// A kernel that faults only now and then is out of reach; that a device is tested once, and then known, is not.
void test_memory() {
    const auto device = open_device(EDGE_BACKEND_OPENCL, false);
    check(device->allocated_bytes() == 0, "the self-test gives its memory back");
    check(open_device(EDGE_BACKEND_OPENCL, false) == device, "models share a device");
    {
        const edge::gpu::Buffer buffer(*device, 1000);
        check(device->allocated_bytes() == 1024, "a buffer of 1000 bytes takes 1024");
    }
    check(device->allocated_bytes() == 0, "a buffer gives its memory back");
    std::string message;
    const edge_status status = status_of([&] { edge::gpu::Buffer(*device, uint64_t{1} << 50); }, &message);
    check(status == EDGE_OUT_OF_MEMORY && contains(message, "hint: "), "a buffer that is too large: " + message);
}

struct Close {
    void operator()(edge_model* model) const { edge_model_close(model); }
    void operator()(edge_session* session) const { edge_session_close(session); }
};
using ModelHandle = std::unique_ptr<edge_model, Close>;
using SessionHandle = std::unique_ptr<edge_session, Close>;

edge_load_options options_of(int32_t level, int32_t kv_bits, edge_backend backend) {
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

ModelHandle load(const std::string& path, int32_t level, int32_t kv_bits, edge_backend backend) {
    const edge_load_options options = options_of(level, kv_bits, backend);
    edge_model* model = nullptr;
    check(edge_model_load(path.c_str(), &options, &model) == EDGE_OK, edge_last_error());
    return ModelHandle(model);
}

constexpr size_t kTokens = 100;

std::vector<float> logits_of(const ModelHandle& model) {
    std::vector<int32_t> tokens(kTokens);
    for (size_t i = 0; i < kTokens; ++i) tokens[i] = static_cast<int32_t>(i * 97 % edge_test::kVocab);
    std::vector<float> logits(kTokens * edge_test::kVocab);
    edge_session* session = nullptr;
    check(edge_session_open(model.get(), &session) == EDGE_OK, edge_last_error());
    const SessionHandle handle(session);
    check(edge_session_feed(session, tokens.data(), kTokens, 1, logits.data()) == EDGE_OK, edge_last_error());
    return logits;
}

// Root mean square of the difference, over that of the CPU's logits.
void test_logits(const std::string& path, edge_backend backend) {
    for (int32_t level = 0; level < edge_test::kLevels; ++level) {
        for (const int32_t kv_bits : {8, 16}) {
            const std::vector<float> expected = logits_of(load(path, level, kv_bits, EDGE_BACKEND_CPU));
            const std::vector<float> found = logits_of(load(path, level, kv_bits, backend));
            double error = 0, total = 0;
            for (size_t i = 0; i < found.size(); ++i) {
                error += (found[i] - expected[i]) * (found[i] - expected[i]);
                total += expected[i] * expected[i];
            }
            const double ratio = std::sqrt(error / total);
            check(total > 1 && ratio < 0.02, "level " + std::to_string(level) + ", " + std::to_string(kv_bits) + " bits on " +
                                                 edge::gpu::backend_name(backend) + ": " + std::to_string(ratio));
        }
    }
}

// Models come and go while the device is open, then the device with them.
void test_cycles(const std::string& path, edge_backend backend) {
    {
        const auto device = open_device(backend, false);
        for (int i = 0; i < 1000; ++i) {
            const int32_t level = i % edge_test::kLevels;
            const ModelHandle model = load(path, level, 8, backend);
            edge_memory memory{};
            memory.struct_size = sizeof memory;
            check(edge_model_estimate(model.get(), level, 0, 0, &memory) == EDGE_OK, edge_last_error());
            check(device->allocated_bytes() == memory.mapped_bytes, "weights take what was announced");
            edge_session* session = nullptr;
            check(edge_session_open(model.get(), &session) == EDGE_OK, edge_last_error());
            const uint64_t session_bytes = device->allocated_bytes() - memory.mapped_bytes;
            check(session_bytes > memory.kv_bytes && session_bytes < memory.kv_bytes + memory.workspace_bytes,
                  "a session takes what was announced");
            edge_session_close(session);
        }
        check(device->allocated_bytes() == 0, "1000 models gave their memory back");
    }
    for (int i = 0; i < 5; ++i) logits_of(load(path, 0, 8, backend));
}

// Five tokens, and what came back from the device per token.
struct Sampled {
    std::vector<int32_t> tokens;
    uint64_t n_bytes;
};
Sampled sample(const ModelHandle& model, const edge_sampling& sampling, const edge::gpu::Device& device) {
    constexpr int kSampled = 5;
    edge_session* session = nullptr;
    check(edge_session_open(model.get(), &session) == EDGE_OK, edge_last_error());
    const SessionHandle handle(session);
    check(edge_session_set_sampling(session, &sampling) == EDGE_OK, edge_last_error());
    const int32_t prompt[] = {1, 5, 9, 13};
    check(edge_session_feed(session, prompt, 4, 0, nullptr) == EDGE_OK, edge_last_error());
    const uint64_t before = device.read_bytes();
    Sampled found;
    for (int i = 0; i < kSampled; ++i) {
        check(edge_session_next(session, &found.tokens.emplace_back()) == EDGE_OK, edge_last_error());
    }
    found.n_bytes = (device.read_bytes() - before) / kSampled;
    return found;
}

// Only as many of the likeliest tokens as a sampler needs are read back, and it takes what it takes of all logits.
void test_sampling(const std::string& path, edge_backend backend) {
    struct Case {
        edge_sampling sampling;
        uint64_t n_bytes;  // of a token
    };
    constexpr size_t kSize = sizeof(edge_sampling);
    constexpr uint64_t kAll = edge_test::kVocab * sizeof(float), kOne = 2 * sizeof(float);
    const Case cases[] = {
        {{kSize, 0.0f, 0, 0, 0, 0, 7}, kOne},
        {{kSize, 0.8f, 1, 0, 0, 0, 7}, kOne},
        {{kSize, 5.0f, 5, 0, 0, 0, 7}, 5 * kOne},
        {{kSize, 5.0f, 40, 0.9f, 0.01f, 0, 7}, 40 * kOne},
        {{kSize, 9.0f, 64, 0.99f, 0, 0, 7}, 64 * kOne},
        {{kSize, 9.0f, 65, 0.99f, 0, 0, 7}, kAll},
        {{kSize, 9.0f, edge_test::kVocab, 0, 0, 0, 7}, kAll},
        {{kSize, 9.0f, 0, 0.9f, 0, 0, 7}, kAll},
        {{kSize, 9.0f, 5, 0, 0, 1.2f, 7}, kAll},
        {{kSize, 0.0f, 0, 0, 0, 1.2f, 7}, kAll},
    };
    const auto device = open_device(backend, false);
    const ModelHandle here = load(path, 1, 8, EDGE_BACKEND_CPU), there = load(path, 1, 8, backend);
    const bool is_exact = is_pocl(*device) || backend == EDGE_BACKEND_CUDA;
    for (const Case& c : cases) {
        const std::string name = "top_k " + std::to_string(c.sampling.top_k) + " at temperature " + std::to_string(c.sampling.temperature);
        const Sampled expected = sample(here, c.sampling, *device), found = sample(there, c.sampling, *device);
        check(!is_exact || found.tokens == expected.tokens, name + ": other tokens than the CPU's");
        check(expected.n_bytes == 0 && found.n_bytes == c.n_bytes, name + ": " + std::to_string(found.n_bytes) + " bytes were read back");
    }
}

// What the extensions give, written out in OpenCL C 1.2. A subgroup is one work item.
constexpr char kFirstLine[] = "#pragma OPENCL FP_CONTRACT OFF";
const std::string kExtensions = R"(
static int four(int4 a, int4 b) { const int4 x = a * b; return x.x + x.y + x.z + x.w; }
static int dot_4x8packed_ss_int(uint a, uint b) { return four(convert_int4(as_char4(a)), convert_int4(as_char4(b))); }
static int dot_4x8packed_us_int(uint a, uint b) { return four(convert_int4(as_uchar4(a)), convert_int4(as_char4(b))); }
static uint get_sub_group_id(void) { return get_local_id(0); }
static uint get_num_sub_groups(void) { return 64; }
static uint get_sub_group_local_id(void) { return 0; }
static float sub_group_reduce_max(float x) { return x; }
)";

std::string with_text(std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    check(at != std::string::npos, "the text contains `" + from + "`");
    return text.replace(at, from.size(), to);
}

// A device that has extensions gives the same bits with them. One whose compiler does not know what the driver promises, or that
// computes wrongly with it, does without.
void test_extensions(const std::string& path) {
    const std::vector<float> plain = logits_of(load(path, 2, 8, EDGE_BACKEND_OPENCL));
    const std::string both = "cl_khr_subgroups cl_khr_integer_dot_product", first = std::string(kFirstLine) + kExtensions;
    const auto opened = [&](const std::string& names, const std::string& text, const std::string& used, const std::string& name) {
        edge::gpu::set_extensions(names);
        edge::gpu::set_source_fault(kFirstLine, text, "edge_attention_q8");  // which makes use of all of them
        const auto device = open_device(EDGE_BACKEND_OPENCL, false);
        const size_t at = device->info().driver.find(", cl_khr");
        const std::string found = at == std::string::npos ? "" : device->info().driver.substr(at);
        check(found == used && device->info().uses_extensions == !used.empty(), name + ": uses `" + found + "`");
        check(logits_of(load(path, 2, 8, EDGE_BACKEND_OPENCL)) == plain, name + ": other logits");
    };
    const std::string dot = ", cl_khr_integer_dot_product", subgroups = ", cl_khr_subgroups";
    opened("cl_khr_fp16 cl_khr_subgroups_other", first, "", "none of them");
    opened(both, first, dot + subgroups, "both");
    opened("cl_khr_subgroups", first, subgroups, "subgroups");
    opened("cl_khr_integer_dot_product", first, dot, "dot products");
    opened(both, with_text(first, "sub_group_reduce_max(float x)", "other(float x)"), dot, "a compiler that knows one");
    opened(both, kFirstLine, "", "a compiler that knows none");
    opened(both, with_text(first, "return x;", "return x * 0.5f;"), "", "a largest number that is not");
    opened(both, with_text(first, "as_uchar4(a)", "as_char4(a)"), "", "a sign that should not be");
    edge::gpu::set_extensions("");
    edge::gpu::set_source_fault("", "", "");
}

// Loads and opens a session; what was there is closed again. The status of what failed first.
edge_status try_session(const std::string& path, const edge_load_options& options, std::string& backend, std::string& message) {
    edge_model* model = nullptr;
    edge_session* session = nullptr;
    edge_status status = edge_model_load(path.c_str(), &options, &model);
    const ModelHandle model_handle(model);
    if (status == EDGE_OK) status = edge_session_open(model, &session);
    const SessionHandle session_handle(session);
    message = edge_last_error();
    if (status != EDGE_OK) return status;
    edge_backend_info info{};
    info.struct_size = sizeof info;
    check(edge_model_backend(model, &info) == EDGE_OK, edge_last_error());
    backend = info.name;
    message = info.reason;
    return status;
}

// A GPU of which it is known beforehand that it has too little memory.
void test_small_device(const std::string& path) {
    edge::gpu::set_memory_of_gpus(10'000);
    std::string backend, message;
    edge_load_options options = options_of(2, 8, EDGE_BACKEND_OPENCL);
    check(try_session(path, options, backend, message) == EDGE_OUT_OF_MEMORY, "by name, at a level: " + message);
    for (const char* part : {"at level 2 with context 128", "there are 10000 bytes", "hint: choose a smaller level"}) {
        check(contains(message, part), std::string(part) + " in: " + message);
    }
    options.choose = 0;
    check(try_session(path, options, backend, message) == EDGE_OUT_OF_MEMORY, "by name, at any level: " + message);
    check(contains(message, "bytes are missing") && contains(message, "has 10000 bytes"), message);
    for (const int32_t choose : {0, 3}) {
        options.choose = choose;
        options.backend = EDGE_BACKEND_AUTO;
        check(try_session(path, options, backend, message) == EDGE_OK && backend == "cpu", "auto falls back to the CPU: " + message);
        check(contains(message, "opencl: ") && contains(message, "needs"), "why there is no GPU: " + message);
    }
    edge::gpu::set_memory_of_gpus(0);
}

// A driver that promised enough memory runs out of it at any allocation, of weights or of a session.
void test_exhausted_device(const std::string& path) {
    edge::gpu::set_memory_of_gpus(1 << 30);
    const auto device = open_device(EDGE_BACKEND_OPENCL, true);
    check(device->info().is_gpu, "it counts as a GPU");
    std::string backend, message;
    edge_memory memory{};
    memory.struct_size = sizeof memory;
    check(edge_model_estimate(load(path, 2, 8, EDGE_BACKEND_OPENCL).get(), 2, 0, 0, &memory) == EDGE_OK, edge_last_error());
    bool fits = false;
    int n_failed = 0, n_fell_back = 0;
    for (uint64_t limit = 1; !fits; limit += memory.total_bytes / 40) {
        edge::gpu::set_memory_of_gpus(limit);
        const edge_status status = try_session(path, options_of(2, 8, EDGE_BACKEND_OPENCL), backend, message);
        fits = status == EDGE_OK;
        if (!fits) ++n_failed;
        check(fits || (status == EDGE_OUT_OF_MEMORY && contains(message, "left, beside") && contains(message, "hint: ")), message);
        check(device->allocated_bytes() == 0, "a failed load gives everything back");
        const edge_status automatic = try_session(path, options_of(2, 8, EDGE_BACKEND_AUTO), backend, message);
        if (automatic == EDGE_OK && backend == "cpu") ++n_fell_back;
        check(automatic == EDGE_OK || contains(message, "left, beside"), "auto: " + message);
        check(device->allocated_bytes() == 0, "auto gives everything back");
    }
    check(n_failed > 20 && n_fell_back > 2 && n_fell_back <= n_failed,
          std::to_string(n_failed) + " failed, " + std::to_string(n_fell_back) + " fell back");
    edge::gpu::set_memory_of_gpus(0);
}

// Prompts on one side, single tokens on the other: with weights that both read where they lie, and on a device with memory of its own.
void test_two_backends(const std::string& path) {
    const std::vector<float> expected = logits_of(load(path, 2, 8, EDGE_BACKEND_CPU));
    for (const uint64_t memory_of_its_own : {uint64_t{0}, uint64_t{1} << 30}) {
        edge::gpu::set_memory_of_gpus(memory_of_its_own);
        const auto device = open_device(EDGE_BACKEND_OPENCL, false);
        const bool is_shared = device->info().shares_memory && edge::gpu::can_share_pages(*device);
        check(!is_pocl(*device) || is_shared == (memory_of_its_own == 0), "PoCL shares memory, a GPU with its own does not");
        for (const bool prompts : {true, false}) {
            const std::string name = std::string(prompts ? "prompts" : "tokens") + (is_shared ? ", shared" : ", apart");
            edge_load_options options = options_of(2, 8, prompts ? EDGE_BACKEND_OPENCL : EDGE_BACKEND_CPU);
            options.decode_backend = prompts ? EDGE_DECODE_CPU : EDGE_DECODE_OPENCL;
            edge_model* raw = nullptr;
            check(edge_model_load(path.c_str(), &options, &raw) == EDGE_OK, edge_last_error());
            const ModelHandle model(raw);
            edge_memory both{}, alone{};
            both.struct_size = alone.struct_size = sizeof both;
            check(edge_model_estimate(raw, 2, 0, 0, &both) == EDGE_OK, edge_last_error());
            check(edge_model_estimate(load(path, 2, 8, EDGE_BACKEND_OPENCL).get(), 2, 0, 0, &alone) == EDGE_OK, edge_last_error());
            const uint64_t held = device->allocated_bytes();
            check(is_shared ? held < alone.mapped_bytes / 2 : held == alone.mapped_bytes,
                  name + ": " + std::to_string(held) + " bytes there");
            check(both.mapped_bytes > alone.mapped_bytes, name + ": its estimate has both sides");
            check(!is_pocl(*device) || logits_of(model) == expected, name + ": other logits");
        }
        check(device->allocated_bytes() == 0, "both directions gave their memory back");
    }
    std::string backend, message;
    edge_load_options options = options_of(0, 8, EDGE_BACKEND_CPU);
    options.choose = 0;
    options.decode_backend = EDGE_DECODE_OPENCL;
    check(try_session(path, options, backend, message) == EDGE_OK && backend == "cpu", "chosen by both memories: " + message);
    edge::gpu::set_memory_of_gpus(10'000);
    check(try_session(path, options, backend, message) == EDGE_OUT_OF_MEMORY, "the device's is too small: " + message);
    check(contains(message, "has 10000 bytes"), message);
    edge::gpu::set_memory_of_gpus(0);
}

// Where there is an NVIDIA GPU, and nvcc built the kernels, they must pass; elsewhere the refusal says why.
void test_cuda(const std::string& path) {
    std::string message;
    const edge_status status = status_of([] { open_device(EDGE_BACKEND_CUDA, true); }, &message);
    if (status == EDGE_OK) {
        test_logits(path, EDGE_BACKEND_CUDA);
        test_sampling(path, EDGE_BACKEND_CUDA);
        test_cycles(path, EDGE_BACKEND_CUDA);
        return;
    }
    check(status == EDGE_NO_DEVICE, "CUDA without a device: " + message);
    const bool says_why = contains(message, "no CUDA") || contains(message, "finds no device") || contains(message, "is static");
    check(says_why, "why there is no CUDA: " + message);
    check(contains(message, "hint: "), "what to do without CUDA: " + message);
    check(!std::getenv("EDGE_REQUIRE_CUDA"), "CUDA is required: " + message);
    std::printf("SKIPPED cuda: %s\n", message.c_str());
}

void test_opencl(const std::string& path) {
    std::string message;
    const edge_status status = status_of([] { open_device(EDGE_BACKEND_OPENCL, false); }, &message);
    if (status == EDGE_OK) {
        test_memory();
        test_faults();
        test_logits(path, EDGE_BACKEND_OPENCL);
        test_sampling(path, EDGE_BACKEND_OPENCL);
        test_cycles(path, EDGE_BACKEND_OPENCL);
        test_two_backends(path);
        if (is_pocl(*open_device(EDGE_BACKEND_OPENCL, false))) {
            test_extensions(path);
            test_small_device(path);
            test_exhausted_device(path);
        } else {
            std::printf("SKIPPED extensions and little memory: they are pretended on PoCL only\n");
        }
        return;
    }
    check(contains(message, "hint: "), "a machine without OpenCL says what to do: " + message);
    check(!std::getenv("EDGE_REQUIRE_OPENCL"), "OpenCL is required: " + message);
    if (n_failures == 0) std::printf("SKIPPED opencl: %s\n", message.c_str());
}

}  // namespace

int main() {
    const std::string path = edge_test::write_temporary(edge_test::small_artifact()), cache = path + ".cache";
    setenv("EDGE_CACHE_DIR", cache.c_str(), 1);
    test_cuda(path);
    test_opencl(path);
    std::filesystem::remove_all(cache);
    std::filesystem::remove(path);
    return finish();
}
