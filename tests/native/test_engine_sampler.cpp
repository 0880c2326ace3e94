// The sampler: each filter on hand-made logits, the draw against exact probabilities, the generator against known values.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <span>
#include <vector>

#include "engine_check.h"
#include "sampler.h"

using namespace edge;

namespace {

struct Fixture {
    explicit Fixture(std::vector<float> values) : logits(std::move(values)), arena(1 << 20), sampler(arena, size()) {}
    int32_t size() const { return static_cast<int32_t>(logits.size()); }
    void set(edge_sampling sampling) {
        sampling.struct_size = sizeof sampling;
        sampler.set(sampling);
    }
    int32_t sample(const std::vector<int32_t>& history = {}) { return sampler.sample(logits, history); }
    std::map<int32_t, double> frequencies(int n) {
        std::map<int32_t, double> found;
        for (int i = 0; i < n; ++i) found[sample()] += 1.0 / n;
        return found;
    }
    std::vector<float> logits;
    Arena arena;
    Sampler sampler;
};

edge_sampling sampling(float temperature, int32_t top_k = 0, float top_p = 0, float min_p = 0, float penalty = 0, uint64_t seed = 1) {
    return {sizeof(edge_sampling), temperature, top_k, top_p, min_p, penalty, seed};
}

void test_greedy() {
    Fixture f({1, 5, 3, 5, -2});
    check(f.sample() == 1, "of equal logits the lowest id");
    f.logits[4] = std::numeric_limits<float>::quiet_NaN();
    check(f.sample() == 1, "a NaN is never chosen");
    f.logits.assign(5, std::numeric_limits<float>::quiet_NaN());
    check(f.sample() == 0, "all NaN");
    f.set(sampling(1));
    check(f.sample() == 0, "all NaN, drawn");
}

void test_penalty() {
    Fixture f({4, 3, -1, -1.5f});
    f.set(sampling(0, 0, 0, 0, 2));
    check(f.sample({0}) == 1, "4 / 2 is below 3");
    check(f.sample({0, 0, 0}) == 1, "a token is penalized once");
    check(f.sample({0, 1}) == 0, "2 against 1.5");
    Fixture negative({-1, -1.5f});
    negative.set(sampling(0, 0, 0, 0, 2));
    check(negative.sample({0}) == 1, "-1 * 2 is below -1.5");
}

// Logits whose softmax is 0.5, 0.25, 0.125, 0.125.
const std::vector<float> kHalves = {std::log(4.0f), std::log(2.0f), 0, 0};

void expect(const std::map<int32_t, double>& found, const std::vector<double>& probabilities, const std::string& what) {
    for (size_t i = 0; i < probabilities.size(); ++i) {
        const auto entry = found.find(static_cast<int32_t>(i));
        const double frequency = entry == found.end() ? 0 : entry->second;
        const double deviation = std::sqrt(probabilities[i] * (1 - probabilities[i]) / 40000);
        check(std::fabs(frequency - probabilities[i]) <= 5 * deviation + 1e-9,
              what + ": token " + std::to_string(i) + " came " + std::to_string(frequency));
    }
}

void test_logprobs() {
    Fixture f(kHalves);
    const double expected[] = {std::log(0.5), std::log(0.25), std::log(0.125), std::log(0.125)};
    std::vector<edge_logprob> out(5);
    f.set(sampling(0.5f, 1, 0, 0, 2));  // how tokens are chosen does not change what they are given
    f.sampler.logprobs(f.logits, 3, 4, out.data());
    check(out[0].token == 3 && std::fabs(out[0].logprob - expected[3]) < 1e-6, "the token itself comes first");
    for (int32_t i = 0; i < 4; ++i) {
        const edge_logprob& one = out[static_cast<size_t>(i) + 1];
        check(one.token == i && std::fabs(one.logprob - expected[i]) < 1e-6, "the likeliest, of equals the lowest id");
    }
    f.sampler.logprobs(f.logits, 1, 0, out.data());
    check(out[0].token == 1 && std::fabs(out[0].logprob - expected[1]) < 1e-6, "the token alone");
    Fixture odd({std::numeric_limits<float>::quiet_NaN(), 700, -700});
    odd.sampler.logprobs(odd.logits, 0, 3, out.data());
    check(out[0].logprob == -std::numeric_limits<float>::infinity(), "a NaN has no probability");
    check(out[1].token == 1 && out[1].logprob == 0 && out[2].token == 2 && out[2].logprob == -1400, "far apart");
    odd.logits.assign(3, std::numeric_limits<float>::infinity());
    odd.sampler.logprobs(odd.logits, 0, 3, out.data());
    check(out[0].logprob == -std::numeric_limits<float>::infinity(), "no probabilities");
    check(f.sample() == 0, "the next draw is not disturbed");
}

void test_draws() {
    Fixture f(kHalves);
    f.set(sampling(1));
    expect(f.frequencies(40000), {0.5, 0.25, 0.125, 0.125}, "plain");
    f.set(sampling(0.5f));  // squares: 16, 4, 1, 1 of 22
    expect(f.frequencies(40000), {16.0 / 22, 4.0 / 22, 1.0 / 22, 1.0 / 22}, "temperature 0.5");
    f.set(sampling(1, 2));
    expect(f.frequencies(40000), {2.0 / 3, 1.0 / 3, 0, 0}, "top_k 2");
    f.set(sampling(1, 0, 0.74f));
    expect(f.frequencies(40000), {2.0 / 3, 1.0 / 3, 0, 0}, "top_p 0.74");
    f.set(sampling(1, 0, 0.76f));
    expect(f.frequencies(40000), {4.0 / 7, 2.0 / 7, 1.0 / 7, 0}, "top_p 0.76");
    f.set(sampling(1, 0, 0, 0.3f));  // of 1, 0.5, 0.25, 0.25
    expect(f.frequencies(40000), {2.0 / 3, 1.0 / 3, 0, 0}, "min_p 0.3");
    f.set(sampling(1, 1));
    expect(f.frequencies(100), {1, 0, 0, 0}, "top_k 1");
    f.set(sampling(1, 3, 0.9f));  // top_p counts what top_k left: 4, 2 of 7 are 0.857
    expect(f.frequencies(40000), {4.0 / 7, 2.0 / 7, 1.0 / 7, 0}, "top_k 3, top_p 0.9");
}

void test_seed() {
    Fixture f(std::vector<float>(100, 0.0f));
    std::vector<int32_t> first, again, other;
    for (const auto& [list, seed] : {std::pair(&first, 7), std::pair(&again, 7), std::pair(&other, 8)}) {
        f.set(sampling(1, 0, 0, 0, 0, static_cast<uint64_t>(seed)));
        for (int i = 0; i < 20; ++i) list->push_back(f.sample());
    }
    check(first == again, "the same seed gives the same tokens");
    check(first != other, "another seed gives others");
    // xoshiro256** behind splitmix64(0), as published implementations give it.
    Random random(0);
    check(random.uniform() == static_cast<double>(0x99ec5f36cb75f2b4 >> 11) * 0x1p-53, "first number of seed 0");
}

void test_arguments() {
    Fixture f(kHalves);
    for (const edge_sampling& bad : {sampling(-1), sampling(1, -1), sampling(1, 0, 1.5f), sampling(1, 0, 0, 2), sampling(1, 0, 0, 0, -1)}) {
        check(status_of([&] { f.set(bad); }) == EDGE_BAD_ARGUMENT, "a value out of range is refused");
    }
}

// Where as many of the likeliest tokens are there as it needs, it draws what it draws from all logits.
void test_likeliest() {
    std::vector<float> logits;
    for (int i = 0; i < 200; ++i) logits.push_back(static_cast<float>(i * 37 % 101) * 0.05f);  // each but one stands about twice
    Fixture all(logits), few(logits);
    std::vector<LikelyToken> sorted;
    for (int32_t i = 0; i < all.size(); ++i) sorted.push_back({logits[static_cast<size_t>(i)], i});
    std::stable_sort(sorted.begin(), sorted.end(), [](const LikelyToken& a, const LikelyToken& b) { return a.logit > b.logit; });
    for (const edge_sampling& given : {sampling(0), sampling(2, 7), sampling(5, 40, 0.8f), sampling(5, 199, 0.9f, 0.2f)}) {
        all.set(given);
        few.set(given);
        const auto n = static_cast<size_t>(few.sampler.n_needed());
        check(n == static_cast<size_t>(given.temperature == 0 ? 1 : given.top_k), "as many as top_k");
        for (int i = 0; i < 50; ++i) check(few.sampler.sample(std::span(sorted).first(n)) == all.sample(), "the same draw");
    }
    for (const edge_sampling& given : {sampling(1), sampling(1, 200), sampling(1, 7, 0, 0, 1.1f), sampling(0, 0, 0, 0, 1.1f)}) {
        few.set(given);
        check(few.sampler.n_needed() == 0, "all logits are needed");
    }
}

}  // namespace

int main() {
    test_greedy();
    test_penalty();
    test_logprobs();
    test_draws();
    test_seed();
    test_likeliest();
    test_arguments();
    return finish();
}
