// What the mixers of a model remember of the tokens so far: as much of a long text as of a short one.
#pragma once
#include <cstdint>
#include <vector>

#include "arena.h"
#include "weights.h"

namespace edge {

class StateCache {
public:
    struct Mixer {
        float* past[3] = {};     // of x, b, c: (conv_kernel - 1, rows) inputs of the convolutions, oldest first
        float* state = nullptr;  // (n_heads, state, head)
    };

    StateCache(Arena& arena, const Weights& weights);

    // Back to the state before the first token.
    void clear() const;

    // Whether there is any: a state cannot go back by some tokens, as keys and values can.
    bool empty() const { return n_floats_ == 0; }

    const Mixer& of(int block) const { return mixers_[static_cast<size_t>(block)]; }

private:
    std::vector<Mixer> mixers_;  // by block; empty for other kinds
    float* floats_ = nullptr;
    uint64_t n_floats_ = 0;
};

}  // namespace edge
