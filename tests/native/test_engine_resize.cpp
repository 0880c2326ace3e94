// Levels that change while sessions of several threads generate. Under the thread sanitizer this is the proof that no step
// sees a level that is half there.
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdint>
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

std::string path;
const int32_t kPrompt[] = {72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100, 33};
constexpr size_t kPromptTokens = sizeof kPrompt / sizeof *kPrompt;

edge_model* load(int32_t level) { return load_level(path, level, 2, true); }

std::vector<float> logits_of(edge_session* session) {
    std::vector<float> logits(kPromptTokens * kVocab);
    edge_session_reset(session);
    check(edge_session_feed(session, kPrompt, kPromptTokens, 1, logits.data()) == EDGE_OK, edge_last_error());
    return logits;
}

std::vector<float> fresh_logits(int32_t level) {
    edge_model* model = load(level);
    edge_session* session = open_session(model);
    const std::vector<float> logits = logits_of(session);
    edge_session_close(session);
    edge_model_close(model);
    return logits;
}

// One conversation after another, by steps and by whole answers, until `stop`.
void converse(edge_model* model, const std::atomic<bool>& stop) {
    for (int round = 0; !stop; ++round) {
        edge_session* session = open_session(model);
        for (int turn = 0; turn < 3; ++turn) {
            for (const float value : logits_of(session)) {
                if (!std::isfinite(value)) return check(false, "a logit is no number");
            }
            int32_t token = 0, n = 0;
            for (int i = 0; i < 8; ++i) check(edge_session_next(session, &token) == EDGE_OK, edge_last_error());
            edge_logprob best{};
            check(edge_session_logprobs(session, 0, &best) == EDGE_OK && best.token == token, edge_last_error());
            const edge_status status = edge_session_generate(session, nullptr, 0, 8, nullptr, 0, nullptr, nullptr, &n);
            check(status == EDGE_OK, edge_last_error());
            check(edge_session_n_exact(session) >= 0, "a number of tokens");
        }
        edge_session_close(session);
    }
}

void test_threads() {
    edge_model* model = load(kLevels - 1);
    edge_session* idle = open_session(model);
    logits_of(idle);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back([&] { converse(model, stop); });
    for (int change = 0; change < 120; ++change) {
        const int32_t level = change * 7 % 5 % kLevels;
        check(edge_model_set_level(model, level, change % 3) == EDGE_OK, edge_last_error());
        check(edge_model_level(model) == level, "the level that was set");
        check(contains(edge_model_level_reason(model), "level " + std::to_string(level)), "and why");
    }
    std::thread other([&] { check(edge_model_set_level(model, 1, 0) == EDGE_OK, edge_last_error()); });
    check(edge_model_set_level(model, 1, 0) == EDGE_OK, edge_last_error());
    other.join();
    stop = true;
    for (std::thread& thread : threads) thread.join();
    check(logits_of(idle) == fresh_logits(1), "an idle session has followed");
    edge_session_close(idle);
    edge_model_close(model);
}

void test_from_a_callback() {
    struct Calls {
        edge_model* model;
        edge_session* session;
    };
    const auto change = [](const char*, size_t, void* user) -> int32_t {
        const auto* calls = static_cast<Calls*>(user);
        check(edge_model_set_level(calls->model, 0, 0) == EDGE_OK, edge_last_error());
        check(edge_session_position(calls->session) > 0, "a position may be asked for");
        check(edge_session_rewind(calls->session, 0) == EDGE_BAD_ARGUMENT, "a session has one call at a time");
        check(contains(edge_last_error(), "in use by another call"), edge_last_error());
        return 0;
    };
    Calls calls{load(2), nullptr};
    calls.session = open_session(calls.model);
    int32_t n = 0;
    const edge_status status = edge_session_generate(calls.session, kPrompt, kPromptTokens, 20, nullptr, 0, change, &calls, &n);
    check(status == EDGE_OK && n == 20, edge_last_error());
    check(edge_model_level(calls.model) == 0 && edge_session_n_exact(calls.session) == 0, "the answer changed its level");
    check(logits_of(calls.session) == fresh_logits(0), "and the next one begins there");
    edge_model_close(calls.model);
    check(edge_session_position(calls.session) == static_cast<int32_t>(kPromptTokens), "a session outlives its model");
    edge_session_close(calls.session);
}

void test_every_level_after_every_other() {
    edge_model* model = load(0);
    edge_session* session = open_session(model);
    std::vector<std::vector<float>> expected;
    for (int32_t level = 0; level < kLevels; ++level) expected.push_back(fresh_logits(level));
    check(expected[0] != expected[1] && expected[1] != expected[2], "levels differ");
    for (const int32_t level : {1, 2, 0, 2, 1, 0}) {
        check(edge_model_set_level(model, level, 0) == EDGE_OK, edge_last_error());
        check(logits_of(session) == expected[static_cast<size_t>(level)], "as a fresh load of level " + std::to_string(level));
    }
    for (const int32_t level : {-1, kLevels}) {
        check(edge_model_set_level(model, level, 0) == EDGE_BAD_ARGUMENT && edge_model_level(model) == 0, "no such level");
    }
    check(edge_model_set_level(nullptr, 0, 0) == EDGE_BAD_ARGUMENT && edge_session_n_exact(nullptr) == 0, "no handle");
    edge_session_close(session);
    edge_model_close(model);
}

void test_trimming() {
    edge_model* model = load(2);
    const auto level_after = [&](int32_t severity) {
        check(edge_model_trim(model, severity) == EDGE_OK, edge_last_error());
        return edge_model_level(model);
    };
    check(level_after(EDGE_TRIM_MODERATE) <= 1, "an eighth");
    check(level_after(EDGE_TRIM_NONE) == 2 && contains(edge_model_level_reason(model), "memory is there again"), "and back");
    check(level_after(EDGE_TRIM_LOW) <= 1, "a half of what can be freed");
    check(level_after(EDGE_TRIM_CRITICAL) == 0 && contains(edge_model_level_reason(model), "told"), "all of it");
    check(edge_model_set_level(model, 1, 0) == EDGE_OK && level_after(EDGE_TRIM_CRITICAL) == 0, edge_last_error());
    check(level_after(EDGE_TRIM_NONE) == 1, "to the level that was set");
    check(edge_model_trim(model, 4) == EDGE_BAD_ARGUMENT && edge_model_trim(nullptr, 1) == EDGE_BAD_ARGUMENT, "no severity");
    edge_model_close(model);
}

}  // namespace

int main() {
    path = edge_test::write_temporary(edge_test::small_artifact());
    test_every_level_after_every_other();
    test_from_a_callback();
    test_trimming();
    test_threads();
    unlink(path.c_str());
    return finish();
}
