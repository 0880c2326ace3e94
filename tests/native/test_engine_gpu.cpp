// GPUs against the CPU: logits; a self-test that refuses a device that computes wrongly, whichever kernel it is; memory that goes
// back. A backend without a device is skipped, with a line that says so, unless EDGE_REQUIRE_OPENCL or EDGE_REQUIRE_CUDA is set.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "gpu/kernel_source.h"
#include "gpu_memory.h"
#include "gpu_model.h"

using edge::gpu::open_device;

namespace {

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
        const bool is_shared = reads_file(*device, path);
        check(is_shared || !is_pocl(*device), "PoCL reads mapped files");
        for (int i = 0; i < 1000; ++i) {
            const int32_t level = i % edge_test::kLevels;
            const ModelHandle model = load(path, level, 8, backend);
            const edge_memory memory = estimate(model, level);
            const uint64_t weights = memory.mapped_bytes - (is_shared ? file_bytes(model, level) : 0);
            check(device->allocated_bytes() == weights, "weights take what was announced");
            edge_session* session = nullptr;
            check(edge_session_open(model.get(), &session) == EDGE_OK, edge_last_error());
            const uint64_t session_bytes = device->allocated_bytes() - weights;
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
            test_shared_pages(path);
            test_vendor_extensions(path);
            test_extensions(path);
            test_small_device(path);
            test_exhausted_device(path);
        } else {
            std::printf("SKIPPED extensions, refused pages and little memory: they are pretended on PoCL only\n");
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
