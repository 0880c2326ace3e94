// Chooses the next token from logits; the same choice on every machine.
#pragma once
#include <cstdint>
#include <span>

#include "arena.h"

namespace edge {

// xoshiro256** (Blackman, Vigna 2018), seeded through splitmix64.
class Random {
public:
    explicit Random(uint64_t seed);
    double uniform();  // [0, 1), 53 bits

private:
    uint64_t state_[4];
};

struct LikelyToken {
    float logit;
    int32_t id;
};
inline constexpr int32_t kMostLikely = 64;  // that are looked for where the logits lie

// In this order: repetition penalty; at temperature 0 the largest logit (of equals the lowest id); else temperature,
// top-k, softmax, top-p, min-p, and a draw. A logit that is not a number counts as -infinity.
class Sampler {
public:
    Sampler(Arena& arena, int32_t vocab_size);

    // Throws EDGE_BAD_ARGUMENT for values out of range. Restarts the random numbers.
    void set(const edge_sampling& sampling);

    // How many of the likeliest tokens suffice to sample, whatever the history; 0: all logits are needed.
    int32_t n_needed() const { return penalty_ != 1 ? 0 : temperature_ == 0 ? 1 : top_k_ < vocab_size_ ? top_k_ : 0; }

    // history: all tokens so far, prompt included; each that occurs in it is penalized once.
    int32_t sample(std::span<const float> logits, std::span<const int32_t> history);
    // The same from the n_needed() likeliest tokens, likeliest first.
    int32_t sample(std::span<const LikelyToken> likeliest);

    // By the softmax of the logits as they are: out[0] for `token`, out[1 .. n_top] for the likeliest, likeliest first.
    void logprobs(std::span<const float> logits, int32_t token, int32_t n_top, edge_logprob* out);

private:
    struct Candidate {
        float logit;
        float weight;  // exp of its distance to the largest
        int32_t id;
    };
    static bool likelier(const Candidate& a, const Candidate& b);
    void list(std::span<const float> logits);
    void penalize(std::span<const int32_t> history);
    int32_t keep_top_k();
    int32_t sample_first(int32_t n, float best);
    int32_t keep_top_p(int32_t n);
    int32_t draw(int32_t n);

    Candidate* candidates_;  // (vocab_size)
    uint8_t* seen_;          // (vocab_size), zero between calls
    int32_t vocab_size_;
    float temperature_ = 0, top_p_ = 1, min_p_ = 0, penalty_ = 1;
    int32_t top_k_ = 0;
    Random random_{0};
};

}  // namespace edge
