#include "gpu_memory.h"

#include <cstdio>
#include <fstream>
#include <utility>

#include "bytes.h"
#include "gpu/opencl_api.h"
#include "gpu_model.h"

using edge::gpu::open_device;

namespace {

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

// What was shared last, in a trial or as a level, and how often anything was.
enum class Pages { none, file, anonymous };
Pages last_shared = Pages::none;
int n_shared = 0;

Pages pages_at(const void* pages) {
    std::ifstream maps("/proc/self/maps");
    const auto address = reinterpret_cast<uintptr_t>(pages);
    for (std::string line; std::getline(maps, line);) {
        unsigned long begin = 0, end = 0, inode = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx %*s %*s %*s %lu", &begin, &end, &inode) != 3) continue;
        if (address >= begin && address < end) return inode != 0 ? Pages::file : Pages::anonymous;
    }
    return Pages::none;
}

// What drivers may make of pages.
const void* take_all(const void* pages, uint64_t) {
    last_shared = pages_at(pages);
    ++n_shared;
    return pages;
}
const void* take_no_files(const void* pages, uint64_t n_bytes) {
    return pages_at(pages) == Pages::file ? nullptr : take_all(pages, n_bytes);
}
const void* take_few(const void* pages, uint64_t n_bytes) { return n_shared > 0 ? nullptr : take_all(pages, n_bytes); }
const void* take_none(const void*, uint64_t) { return nullptr; }
const void* take_others(const void*, uint64_t n_bytes) {
    alignas(4096) static char zeros[64 << 10];
    return n_bytes <= sizeof zeros ? zeros : nullptr;
}

int n_imported = 0;  // pages, by what stands for clImportMemoryARM

edge::gpu::cl::Memory take_import(edge::gpu::cl::Context context, edge::gpu::cl::Bits flags, const intptr_t* properties, void* pages,
                                  size_t n_bytes, edge::gpu::cl::Status* status) {
    ++n_imported;
    check(flags == edge::gpu::cl::kReadOnly && properties[0] == 0x40B2 && properties[1] == 0x40B3 && properties[2] == 0,
          "pages of the host are imported to be read");
    return edge::gpu::cl::api().CreateBuffer(context, flags | edge::gpu::cl::kUseHostPointer, n_bytes, pages, status);
}

edge::gpu::cl::Memory refuse_import(edge::gpu::cl::Context, edge::gpu::cl::Bits, const intptr_t*, void*, size_t,
                                    edge::gpu::cl::Status* status) {
    ++n_imported;
    *status = -30;  // CL_INVALID_VALUE
    return nullptr;
}

// Levels change while a session has tokens.
void check_running_session(const ModelHandle& model, const std::string& path, const std::string& name) {
    constexpr size_t kKept = kTokens / 2;
    const SessionHandle session = open_session(model);
    logits_from(0, session);
    for (const int32_t level : {2, 0, 1}) {
        check(edge_model_set_level(model.get(), level, EDGE_RECOMPUTE_NONE) == EDGE_OK, edge_last_error());
        check(edge_session_rewind(session.get(), kKept) == EDGE_OK, edge_last_error());
        const std::vector<float> all = logits_of(load(path, level, 8, EDGE_BACKEND_CPU));
        const std::vector<float> expected(all.begin() + kKept * edge_test::kVocab, all.end());
        check(logits_from(kKept, session) == expected, name + ": other logits of a session that goes on");
    }
}

}  // namespace

// A device that shares memory reads the mapped file. Drivers that refuse such pages get a copy where two backends read it, and those
// that refuse any, or show others, are given the weights like a device with memory of its own; so are those that refuse as many
// pages as a level has, but not beside another backend.
void test_shared_pages(const std::string& path) {
    struct Case {
        const char* name;
        edge::gpu::PagesRead* read;
        Pages alone, both;  // that are read in the end
    };
    const Case cases[] = {{"all pages are taken", take_all, Pages::file, Pages::file},
                          {"those of files are refused", take_no_files, Pages::none, Pages::anonymous},
                          {"more than a trial is refused", take_few, Pages::none, Pages::none},
                          {"others are read", take_others, Pages::none, Pages::none},
                          {"all are refused", take_none, Pages::none, Pages::none}};
    const std::pair<edge_backend, edge_decode_backend> backends[] = {
        {EDGE_BACKEND_OPENCL, EDGE_DECODE_SAME}, {EDGE_BACKEND_OPENCL, EDGE_DECODE_CPU}, {EDGE_BACKEND_CPU, EDGE_DECODE_OPENCL}};
    const auto device = open_device(EDGE_BACKEND_OPENCL, false);
    for (const Case& c : cases) {
        edge::gpu::set_pages_read(c.read);
        const bool is_tried_only = c.read == take_few;
        for (const auto& [prompts, tokens] : backends) {
            const bool is_alone = tokens == EDGE_DECODE_SAME;
            const Pages expected = is_alone ? c.alone : c.both;
            const std::string name = std::string(c.name) + (is_alone ? ", one backend" : ", two backends");
            edge_load_options options = options_of(2, 8, prompts);
            options.decode_backend = tokens;
            edge_model* raw = nullptr;
            last_shared = Pages::none;
            n_shared = 0;
            const edge_status status = edge_model_load(path.c_str(), &options, &raw);
            const ModelHandle model(raw);
            if (is_tried_only && !is_alone) {
                check(status == EDGE_OUT_OF_MEMORY && contains(edge_last_error(), "does not share"), name + ": " + edge_last_error());
                continue;
            }
            check(status == EDGE_OK, name + ": " + edge_last_error());
            check(is_tried_only || last_shared == expected, name + ": the device reads other pages");
            for (const int32_t level : {2, 0, 1}) {
                check(edge_model_set_level(raw, level, EDGE_RECOMPUTE_NONE) == EDGE_OK, edge_last_error());
                check(logits_of(model) == logits_of(load(path, level, 8, EDGE_BACKEND_CPU)), name + ": other logits");
                const uint64_t file = file_bytes(model, level), held = device->allocated_bytes();
                uint64_t here = is_alone && expected == Pages::none ? 0 : file;  // of what was announced
                if (expected == Pages::anonymous) here = edge::align_bytes(file, 2 << 20);
                check(is_tried_only || held == estimate(model, level).mapped_bytes - here, name + ": the device holds what was announced");
                check((held > file / 2) == (expected == Pages::none), name + ": weights, or only tables");
            }
            check_running_session(model, path, name);
        }
        check(device->allocated_bytes() == 0, std::string(c.name) + ": memory is given back");
    }
    edge::gpu::set_pages_read(nullptr);
}

// What Adreno's and Mali's drivers offer and PoCL lacks: it says no, and all goes on without. An import that works is what is used.
void test_vendor_extensions(const std::string& path) {
    const std::vector<float> expected = logits_of(load(path, 2, 8, EDGE_BACKEND_CPU));
    const auto opened = [&](const std::string& names, const std::string& used, const std::string& name) {
        edge::gpu::set_extensions(names);
        const auto device = open_device(EDGE_BACKEND_OPENCL, false);
        const size_t at = device->info().driver.find(", cl_");
        const std::string found = at == std::string::npos ? "" : device->info().driver.substr(at);
        check(found == used, name + ": uses `" + found + "`");
        check(reads_file(*device, path), name + ": reads the mapped file");
        check(logits_of(load(path, 2, 8, EDGE_BACKEND_OPENCL)) == expected, name + ": other logits");
    };
    opened("cl_qcom_perf_hint cl_arm_import_memory", "", "a driver that lacks what it names");
    for (edge::gpu::cl::Import* import : {take_import, refuse_import}) {
        n_imported = 0;
        edge::gpu::set_import(reinterpret_cast<void*>(import));
        opened("cl_arm_import_memory_host", ", cl_arm_import_memory", "an import");
        check(n_imported > 0, "what is shared is imported");
    }
    edge::gpu::set_import(nullptr);
    edge::gpu::set_extensions("");
}

// Prompts on one side, single tokens on the other: with weights that both read where they lie, and on a device with memory of its own.
void test_two_backends(const std::string& path) {
    const std::vector<float> expected = logits_of(load(path, 2, 8, EDGE_BACKEND_CPU));
    for (const uint64_t memory_of_its_own : {uint64_t{0}, uint64_t{1} << 30}) {
        edge::gpu::set_memory_of_gpus(memory_of_its_own);
        const auto device = open_device(EDGE_BACKEND_OPENCL, false);
        const bool is_shared = reads_file(*device, path);
        const bool is_copied = !is_shared && edge::gpu::can_share_copies(*device);  // a driver that takes pages, but none of files
        check(!is_pocl(*device) || (is_shared == (memory_of_its_own == 0) && !is_copied),
              "PoCL shares memory, a GPU with its own does not");
        for (const bool prompts : {true, false}) {
            const std::string name = std::string(prompts ? "prompts" : "tokens") + (is_shared ? ", shared" : ", apart");
            edge_load_options options = options_of(2, 8, prompts ? EDGE_BACKEND_OPENCL : EDGE_BACKEND_CPU);
            options.decode_backend = prompts ? EDGE_DECODE_CPU : EDGE_DECODE_OPENCL;
            edge_model* raw = nullptr;
            check(edge_model_load(path.c_str(), &options, &raw) == EDGE_OK, edge_last_error());
            const ModelHandle model(raw);
            const uint64_t both = estimate(model, 2).mapped_bytes, file = file_bytes(model, 2), held = device->allocated_bytes();
            const uint64_t alone = estimate(load(path, 2, 8, EDGE_BACKEND_OPENCL), 2).mapped_bytes;
            check(is_copied || held == alone - (is_shared ? file : 0), name + ": " + std::to_string(held) + " bytes there");
            check(is_copied || both == (is_shared ? alone : alone + file), name + ": its estimate has both sides");
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
    const edge_memory memory = estimate(load(path, 2, 8, EDGE_BACKEND_OPENCL), 2);
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
