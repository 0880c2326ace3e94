// Each allocation of loading, tokenizing, generating and changing levels fails, alone or with all that follow: an error that
// says so, nothing leaked, no crash, and the next try works. Allocations are operator new of all threads, and mmap.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "edge.h"
#include "engine_check.h"
#include "small_artifact.h"

namespace {

constexpr int64_t kNever = INT64_MAX;
std::atomic<int64_t> n_until_failure{kNever}, n_live{0}, n_mapped_bytes{0};
std::atomic<bool> others_fail{false};  // all behind the one that fails, too

bool fails_now() {
    if (n_until_failure.load() == kNever) return false;
    const int64_t n_left = n_until_failure.fetch_sub(1);
    return n_left == 1 || (n_left < 1 && others_fail);
}

void* allocate(size_t n_bytes, size_t alignment) {
    if (fails_now()) throw std::bad_alloc();
    void* memory = alignment <= alignof(std::max_align_t)
                       ? std::malloc(n_bytes ? n_bytes : 1)
                       : std::aligned_alloc(alignment, (n_bytes + alignment - 1) / alignment * alignment);
    if (!memory) throw std::bad_alloc();
    n_live.fetch_add(1);
    return memory;
}

void release(void* memory) noexcept {
    if (memory) n_live.fetch_sub(1);
    std::free(memory);
}

int64_t whole_pages(size_t n_bytes) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    return (static_cast<int64_t>(n_bytes) + page - 1) / page * page;
}

}  // namespace

void* operator new(size_t n_bytes) { return allocate(n_bytes, 1); }
void* operator new(size_t n_bytes, std::align_val_t alignment) { return allocate(n_bytes, static_cast<size_t>(alignment)); }
void* operator new(size_t n_bytes, const std::nothrow_t&) noexcept {
    try {
        return allocate(n_bytes, 1);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
// The sanitizers have their own of these, which do not come here by themselves.
void* operator new[](size_t n_bytes) { return allocate(n_bytes, 1); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete[](void* memory, size_t) noexcept { release(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { release(memory); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete(void* memory, size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { release(memory); }

// The linker puts these in place of mmap and munmap in the engine (-Wl,--wrap).
extern "C" {
void* __real_mmap(void* address, size_t length, int protection, int flags, int file, off_t offset);
int __real_munmap(void* address, size_t length);

void* __wrap_mmap(void* address, size_t length, int protection, int flags, int file, off_t offset) {
    if (fails_now()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void* memory = __real_mmap(address, length, protection, flags, file, offset);
    if (memory != MAP_FAILED) n_mapped_bytes.fetch_add(whole_pages(length));
    return memory;
}

int __wrap_munmap(void* address, size_t length) {
    n_mapped_bytes.fetch_sub(whole_pages(length));
    return __real_munmap(address, length);
}
}

namespace {

constexpr char kText[] = "one <bos> two\n\xc3\xa4 three";

struct Result {
    edge_status status = EDGE_OK;
    std::string message;
    std::vector<int32_t> tokens;
    int64_t n_allocations = 0, n_left = 0, n_bytes_left = 0;
};

// What a program does: loads, tokenizes, generates, changes the level, generates again. Ends at the first error.
edge_status everything(const char* path, bool copy, int32_t* tokens, int32_t* n_tokens) {
    edge_load_options options{};
    options.struct_size = sizeof options;
    options.choose = 3;
    options.level = 2;
    options.context_tokens = 64;
    options.n_threads = 3;
    options.huge_pages = copy;
    edge_model* model = nullptr;
    edge_session* session = nullptr;
    edge_status status = edge_model_load(path, &options, &model);
    size_t n_prompt = 0;
    int32_t prompt[64];
    if (status == EDGE_OK) {
        status = edge_tokenize(model, kText, sizeof kText - 1, 1, 1, prompt, sizeof prompt / sizeof *prompt, &n_prompt);
    }
    if (status == EDGE_OK) status = edge_session_open(model, &session);
    for (int32_t level = 2; level >= 0 && status == EDGE_OK; level -= 2) {
        int32_t n = 0;
        status = edge_model_set_level(model, level, level == 0);
        if (status == EDGE_OK) {
            status = edge_session_generate(session, level == 2 ? prompt : nullptr, level == 2 ? n_prompt : 0, 6, nullptr, 0,
                                           nullptr, nullptr, &n);
        }
        for (int32_t i = 0; i < n && status == EDGE_OK; ++i) status = edge_session_next(session, &tokens[(*n_tokens)++]);
    }
    size_t n_bytes = 0;
    char text[256];
    if (status == EDGE_OK) status = edge_detokenize(model, tokens, static_cast<size_t>(*n_tokens), 1, text, sizeof text, &n_bytes);
    edge_session_close(session);
    edge_model_close(model);
    return status;
}

// The nth allocation fails; kNever: none does.
Result run(const std::string& path, bool copy, int64_t n) {
    int32_t tokens[16] = {}, n_tokens = 0;
    Result result;
    const int64_t n_before = n_live, n_bytes_before = n_mapped_bytes;
    n_until_failure = n;
    result.status = everything(path.c_str(), copy, tokens, &n_tokens);
    result.n_allocations = n - n_until_failure.exchange(kNever);
    result.n_left = n_live - n_before;
    result.n_bytes_left = n_mapped_bytes - n_bytes_before;
    if (result.status != EDGE_OK) result.message = edge_last_error();
    result.tokens.assign(tokens, tokens + n_tokens);
    return result;
}

void fail_each(const std::string& path, bool copy, bool and_all_others) {
    const std::string name = std::string(copy ? "copied, " : "mapped, ") + (and_all_others ? "from then on, " : "once, ");
    others_fail = and_all_others;
    const Result good = run(path, copy, kNever - 1);
    check(good.status == EDGE_OK && !good.tokens.empty(), name + "without a failure: " + good.message);
    run(path, copy, 2);  // leaves a message of this thread, which is kept
    int n_tried = 0, n_survived = 0;
    for (int64_t n = 1; n <= good.n_allocations; ++n) {
        const Result bad = run(path, copy, n);
        const std::string which = name + "allocation " + std::to_string(n) + " fails: ";
        ++n_tried;
        n_survived += bad.status == EDGE_OK;
        check(bad.status == EDGE_OK || bad.status == EDGE_OUT_OF_MEMORY,
              which + "status " + std::to_string(bad.status) + ", " + bad.message);
        check(bad.status != EDGE_OK || bad.tokens == good.tokens, which + "what goes on all the same goes on right");
        check(bad.status == EDGE_OK || contains(bad.message, "alloc") || contains(bad.message, "map"), which + bad.message);
        check(bad.n_left == 0 && bad.n_bytes_left == 0, which + std::to_string(bad.n_left) + " allocations and " +
                                                           std::to_string(bad.n_bytes_left) + " mapped bytes are left");
    }
    check(run(path, copy, kNever).tokens == good.tokens, name + "the next try works");
    check(n_survived < n_tried / 2, name + "failures are noticed");
    std::printf("%s%lld allocations, %d made to fail: %d times an error, %d times it was not needed\n", name.c_str(),
                static_cast<long long>(good.n_allocations), n_tried, n_tried - n_survived, n_survived);
}

}  // namespace

int main() {
    const std::string path = edge_test::write_temporary(edge_test::small_artifact());
    for (const bool copy : {false, true}) {
        for (const bool and_all_others : {false, true}) fail_each(path, copy, and_all_others);
    }
    unlink(path.c_str());
    return finish();
}
