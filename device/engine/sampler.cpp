#include "sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/exp.h"

namespace edge {
namespace {

float or_default(float value, float fallback) { return value == 0 ? fallback : value; }

void require(bool legal, const char* name, float value, const char* expected) {
    if (!legal) throw Error{EDGE_BAD_ARGUMENT, std::string(name) + " is " + std::to_string(value) + ", expected " + expected};
}

}  // namespace

Random::Random(uint64_t seed) {
    for (uint64_t& word : state_) {
        seed += 0x9e3779b97f4a7c15;
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        word = z ^ (z >> 31);
    }
}

double Random::uniform() {
    const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return static_cast<double>(result >> 11) * 0x1p-53;
}

Sampler::Sampler(Arena& arena, int32_t vocab_size)
    : candidates_(arena.take<Candidate>(static_cast<uint64_t>(vocab_size))),
      seen_(arena.take<uint8_t>(static_cast<uint64_t>(vocab_size))),
      vocab_size_(vocab_size) {}

void Sampler::set(const edge_sampling& sampling) {
    const float top_p = or_default(sampling.top_p, 1), penalty = or_default(sampling.repetition_penalty, 1);
    require(sampling.temperature >= 0 && std::isfinite(sampling.temperature), "temperature", sampling.temperature,
            "a number from 0 up (0 takes the likeliest token)");
    require(sampling.top_k >= 0, "top_k", static_cast<float>(sampling.top_k), "an integer from 0 up (0: off)");
    require(top_p > 0 && top_p <= 1, "top_p", top_p, "a number from 0 to 1 (1: off)");
    require(sampling.min_p >= 0 && sampling.min_p <= 1, "min_p", sampling.min_p, "a number from 0 to 1 (0: off)");
    require(penalty > 0 && std::isfinite(penalty), "repetition_penalty", penalty, "a number above 0 (1: off)");
    temperature_ = sampling.temperature;
    top_k_ = sampling.top_k;
    top_p_ = top_p;
    min_p_ = sampling.min_p;
    penalty_ = penalty;
    random_ = Random(sampling.seed);
}

bool Sampler::likelier(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Every token is a candidate, in the order of ids.
void Sampler::list(std::span<const float> logits) {
    for (int32_t id = 0; id < vocab_size_; ++id) {
        const float logit = logits[static_cast<size_t>(id)];
        candidates_[id] = {std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit, 0, id};
    }
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history) {
    list(logits);
    if (penalty_ != 1) penalize(history);
    const Candidate best = *std::min_element(candidates_, candidates_ + vocab_size_, likelier);
    if (temperature_ == 0 || !std::isfinite(best.logit)) return best.id;
    return sample_first(keep_top_k(), best.logit);
}

int32_t Sampler::sample(std::span<const LikelyToken> likeliest) {
    const LikelyToken& best = likeliest.front();
    if (temperature_ == 0 || !std::isfinite(best.logit)) return best.id;
    std::transform(likeliest.begin(), likeliest.end(), candidates_, [](const LikelyToken& token) {
        return Candidate{token.logit, 0, token.id};
    });
    return sample_first(static_cast<int32_t>(likeliest.size()), best.logit);
}

// Of the first n candidates.
int32_t Sampler::sample_first(int32_t n, float best) {
    for (int32_t i = 0; i < n; ++i) candidates_[i].weight = edge_exp((candidates_[i].logit - best) / temperature_);
    return draw(keep_top_p(n));
}

void Sampler::logprobs(std::span<const float> logits, int32_t token, int32_t n_top, edge_logprob* out) {
    list(logits);
    const float best = std::min_element(candidates_, candidates_ + vocab_size_, likelier)->logit;
    double total = 0;
    for (int32_t i = 0; i < vocab_size_; ++i) total += edge_exp(candidates_[i].logit - best);
    const double normalizer = static_cast<double>(best) + std::log(total);
    const auto score = [normalizer](const Candidate& candidate) {
        const float logprob = static_cast<float>(static_cast<double>(candidate.logit) - normalizer);
        return edge_logprob{candidate.id, std::isnan(logprob) ? -std::numeric_limits<float>::infinity() : logprob};
    };
    out[0] = score(candidates_[token]);
    std::partial_sort(candidates_, candidates_ + n_top, candidates_ + vocab_size_, likelier);
    std::transform(candidates_, candidates_ + n_top, out + 1, score);
}

void Sampler::penalize(std::span<const int32_t> history) {
    for (const int32_t id : history) {
        if (seen_[id]) continue;
        seen_[id] = 1;
        float& logit = candidates_[id].logit;
        logit = logit > 0 ? logit / penalty_ : logit * penalty_;
    }
    for (const int32_t id : history) seen_[id] = 0;
}

// The top_k likeliest, likeliest first; returns how many there are.
int32_t Sampler::keep_top_k() {
    if (top_k_ == 0 || top_k_ >= vocab_size_) return vocab_size_;
    std::partial_sort(candidates_, candidates_ + top_k_, candidates_ + vocab_size_, likelier);
    return top_k_;
}

// The fewest of the likeliest whose weights reach top_p of the sum over the first n; returns how many there are.
int32_t Sampler::keep_top_p(int32_t n) {
    if (top_p_ >= 1) return n;
    double total = 0;
    for (int32_t i = 0; i < n; ++i) total += candidates_[i].weight;
    const auto later = [](const Candidate& a, const Candidate& b) { return likelier(b, a); };
    std::make_heap(candidates_, candidates_ + n, later);
    double sum = 0;
    int32_t kept = 0;
    while (kept < n && sum < total * static_cast<double>(top_p_)) {  // the heap's top moves to the end of the range
        std::pop_heap(candidates_, candidates_ + (n - kept), later);
        sum += candidates_[n - ++kept].weight;
    }
    std::reverse(candidates_, candidates_ + n);
    return kept;
}

// Draws by weight among the first n; those below min_p of the largest weight (which is 1) are left out.
int32_t Sampler::draw(int32_t n) {
    double total = 0;
    for (int32_t i = 0; i < n; ++i) {
        if (candidates_[i].weight < min_p_) candidates_[i].weight = 0;
        total += candidates_[i].weight;
    }
    double left = random_.uniform() * total;
    int32_t chosen = candidates_[0].id;
    for (int32_t i = 0; i < n; ++i) {
        if (candidates_[i].weight == 0) continue;
        chosen = candidates_[i].id;
        left -= candidates_[i].weight;
        if (left < 0) break;
    }
    return chosen;
}

}  // namespace edge
