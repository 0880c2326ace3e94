#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "targets.h"

namespace edge_fuzz {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

uint64_t measured(int32_t vocab_size) {
    edge::Arena arena;
    edge::Sampler sampler(arena, vocab_size);
    return arena.used();
}

bool likelier(float a, float b) { return (std::isnan(a) ? -kInfinity : a) > (std::isnan(b) ? -kInfinity : b); }

// What of a choice can be said without choosing again.
void check_choice(const std::vector<float>& logits, const edge_sampling& sampling, bool penalized, int32_t id) {
    require(id >= 0 && id < static_cast<int32_t>(logits.size()), "a token of the vocabulary");
    if (penalized) return;
    const float chosen = logits[static_cast<size_t>(id)];
    const auto n_better = std::count_if(logits.begin(), logits.end(), [&](float logit) { return likelier(logit, chosen); });
    if (sampling.temperature == 0) require(n_better == 0, "at temperature 0 the likeliest token");
    if (sampling.top_k > 0) require(n_better < sampling.top_k, "one of the top_k likeliest");
    const bool any = std::any_of(logits.begin(), logits.end(), [](float logit) { return logit > -kInfinity; });
    require(!any || chosen > -kInfinity, "no token that is impossible");
}

void check_logprobs(edge::Sampler& sampler, const std::vector<float>& logits, int32_t token) {
    const auto n = static_cast<int32_t>(logits.size());
    std::vector<edge_logprob> found(static_cast<size_t>(n) + 1);
    sampler.logprobs(logits, token, n, found.data());
    require(found[0].token == token, "first the token itself");
    for (size_t i = 0; i < found.size(); ++i) {
        require(found[i].token >= 0 && found[i].token < n && !std::isnan(found[i].logprob), "a number for a token");
        require(i < 2 || found[i].logprob <= found[i - 1].logprob, "likeliest first");
    }
}

void run(std::string_view bytes) {
    Input input(bytes);
    edge_sampling sampling{};
    sampling.temperature = input.number<float>();
    sampling.top_k = input.number<int32_t>();
    sampling.top_p = input.number<float>();
    sampling.min_p = input.number<float>();
    sampling.repetition_penalty = input.number<float>();
    sampling.seed = input.number<uint64_t>();
    const int32_t vocab_size = 1 + input.number<uint8_t>();
    std::vector<float> logits(static_cast<size_t>(vocab_size));
    for (float& logit : logits) logit = input.number<float>();
    std::vector<int32_t> history;
    while (!input.empty()) history.push_back(input.number<uint8_t>() % vocab_size);
    edge::Arena arena(measured(vocab_size));
    edge::Sampler sampler(arena, vocab_size);
    edge_sampling used{};  // options that are refused change nothing: greedy, as a sampler begins
    try {
        sampler.set(sampling);
        used = sampling;
    } catch (const edge::Error& error) {
        require(error.status == EDGE_BAD_ARGUMENT, "an error that blames the caller");
    }
    const bool penalized = used.repetition_penalty != 0 && used.repetition_penalty != 1 && !history.empty();
    for (int i = 0; i < 3; ++i) {
        const int32_t id = sampler.sample(logits, history);
        check_choice(logits, used, penalized, id);
        check_logprobs(sampler, logits, id);
    }
}

template <typename T>
void add(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string seed(const edge_sampling& sampling, const std::vector<float>& logits, const std::string& history) {
    std::string out;
    add(out, sampling.temperature), add(out, sampling.top_k), add(out, sampling.top_p), add(out, sampling.min_p);
    add(out, sampling.repetition_penalty), add(out, sampling.seed);
    out.push_back(static_cast<char>(logits.size() - 1));
    for (const float logit : logits) add(out, logit);
    return out + history;
}

std::vector<std::string> seeds() {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<std::vector<float>> rows = {
        {0, 1, -3, 2.5f, 2.5f, 0.1f, -20, 7},
        {nan, kInfinity, -kInfinity, 3e38f, -3e38f, 1e-40f, 0, -0.0f},
        std::vector<float>(4, nan),
        std::vector<float>(4, -kInfinity),
        std::vector<float>(200, 1),
    };
    std::vector<std::string> all;
    for (const auto& logits : rows) {
        all.push_back(seed({0, 0, 0, 0, 0, 0, 0}, logits, ""));
        all.push_back(seed({0, 0.8f, 40, 0.9f, 0.05f, 1.1f, 7}, logits, "abcabc"));
        all.push_back(seed({0, 1e-45f, 2, 0.5f, 1, 0.5f, 7}, logits, "a"));
        all.push_back(seed({0, 3e38f, 0, 1e-30f, 0, 1e-38f, 7}, logits, "aaab"));
    }
    return all;
}

}  // namespace

const Target kSampler = {"sampler", run, seeds, nullptr};

}  // namespace edge_fuzz
