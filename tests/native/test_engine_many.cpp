// Many of everything: loads and closes without growth, sessions of several models and levels in threads of their own,
// sessions that outlive their model, and calls that other threads cancel. Under the thread sanitizer this is the proof that models share nothing unguarded.
#include <dirent.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "edge.h"
#include "engine_check.h"
#include "engine_model.h"
#include "small_artifact.h"

using edge_test::kLevels;
using edge_test::kVocab;

namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || !defined(__x86_64__)
constexpr bool kSlow = true;  // sanitizers keep freed memory, and find what leaks by themselves; others run in an emulator
#else
constexpr bool kSlow = false;
#endif
constexpr int kLoads = kSlow ? 300 : 10'000;
constexpr int kSessions = 24, kTurns = 3;
constexpr int kCancelled = 6, kCalls = kSlow ? 100 : 400;
const int32_t kPrompt[] = {72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100, 33};
constexpr size_t kPromptTokens = sizeof kPrompt / sizeof *kPrompt;

std::vector<float> logits_of(edge_session* session) {
    std::vector<float> logits(kPromptTokens * kVocab);
    edge_session_reset(session);
    check(edge_session_feed(session, kPrompt, kPromptTokens, 1, logits.data()) == EDGE_OK, edge_last_error());
    int32_t n = 0;
    check(edge_session_generate(session, nullptr, 0, 6, nullptr, 0, nullptr, nullptr, &n) == EDGE_OK, edge_last_error());
    return logits;
}

// Bytes that are resident, and files that are open.
struct Held {
    long n_bytes = 0;
    int n_files = 0;
};

Held held() {
    Held found;
    if (FILE* file = std::fopen("/proc/self/statm", "r")) {
        long total = 0, pages = 0;
        if (std::fscanf(file, "%ld %ld", &total, &pages) == 2) found.n_bytes = pages * sysconf(_SC_PAGESIZE);
        std::fclose(file);
    }
    if (DIR* files = opendir("/proc/self/fd")) {
        while (readdir(files)) ++found.n_files;
        closedir(files);
    }
    return found;
}

void test_loads(const std::string& path) {
    Held before;
    for (int i = 0; i < kLoads; ++i) {
        if (i == kLoads / 10) before = held();  // by then allocators have what they keep
        edge_model* model = load_level(path, i % kLevels, 1 + i % 3);
        if (i % 4 == 0) {
            edge_session* session = open_session(model);
            if (i % 8 == 0) logits_of(session);
            if (i % 16 == 0) {
                edge_model_close(model);  // the session outlives it
                logits_of(session);
                model = nullptr;
            }
            edge_session_close(session);
        }
        edge_model_close(model);
    }
    const Held after = held();
    std::printf("%d loads: %ld KiB more at the end than after a tenth of them\n", kLoads, (after.n_bytes - before.n_bytes) / 1024);
    check(after.n_files == before.n_files, "as many open files as before");
    check(kSlow || after.n_bytes - before.n_bytes < 2 << 20, "no growth");
}

// Sessions of the same model share its level; those of different models only the file.
void test_sessions(const std::string& path) {
    std::vector<edge_model*> models;
    std::vector<std::vector<float>> expected;
    for (int32_t level = 0; level < kLevels; ++level) {
        models.push_back(load_level(path, level, 1 + level % 2));
        edge_session* session = open_session(models.back());
        expected.push_back(logits_of(session));
        edge_session_close(session);
    }
    std::vector<std::thread> threads;
    for (int i = 0; i < kSessions; ++i) {
        threads.emplace_back([&, level = static_cast<size_t>(i % kLevels)] {
            edge_session* session = open_session(models[level]);
            for (int turn = 0; turn < kTurns; ++turn) check(logits_of(session) == expected[level], "the bits of its own level");
            edge_session_close(session);
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (edge_model* model : models) edge_model_close(model);
}

// Somebody else's thread cancels at any moment: a call ends as it should or as cancelled, and the session can go on.
void test_cancels(const std::string& path) {
    edge_model* model = load_level(path, kLevels - 1, 2);
    std::vector<edge_session*> sessions;
    for (int i = 0; i < kCancelled; ++i) sessions.push_back(open_session(model));
    const std::vector<float> expected = logits_of(sessions[0]);
    std::atomic<int> n_running{kCancelled}, n_cancelled{0}, n_finished{0};
    std::vector<std::thread> threads;
    for (edge_session* session : sessions) {
        threads.emplace_back([&, session] {
            for (int turn = 0; turn < kCalls; ++turn) {
                int32_t n = 0;
                if (turn % 4 == 0) edge_session_reset(session);
                const edge_status status = edge_session_generate(session, turn % 4 == 0 ? kPrompt : nullptr,
                                                                 turn % 4 == 0 ? kPromptTokens : 0, 8, nullptr, 0, nullptr, nullptr, &n);
                // A prompt that was cancelled is forgotten, so what follows it has nothing to continue.
                check(status == EDGE_OK || status == EDGE_CANCELLED || status == EDGE_BAD_ARGUMENT, edge_last_error());
                ++(status == EDGE_CANCELLED ? n_cancelled : n_finished);
            }
            --n_running;
        });
    }
    for (uint32_t i = 0; n_running > 0; ++i) {
        edge_session_cancel(sessions[i % kCancelled]);
        std::this_thread::sleep_for(std::chrono::microseconds(i * 7919 % 400));
    }
    for (std::thread& thread : threads) thread.join();
    std::printf("%d calls were cancelled, %d were not\n", n_cancelled.load(), n_finished.load());
    check(n_cancelled > 0 && n_finished > 0, "both happen");
    for (edge_session* session : sessions) {
        check(logits_of(session) == expected, "the bits of a session that nobody cancelled");
        edge_session_close(session);
    }
    edge_model_close(model);
}

}  // namespace

int main() {
    const std::string path = edge_test::write_temporary(edge_test::small_artifact());
    test_loads(path);
    test_sessions(path);
    test_cancels(path);
    unlink(path.c_str());
    return finish();
}
