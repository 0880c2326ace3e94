// What the mixers of a model remember of the tokens so far: as much of a long text as of a short one.
#pragma once
#include <cstdint>
#include <vector>

#include "arena.h"
#include "weights.h"

namespace edge {

class StateCache {
public:
    struct Shape {  // what a level keeps of a mixer; zeros for other kinds
        int32_t n_heads = 0, n_past = 0, state = 0, head = 0;
        int64_t rows[3] = {};  // of x, b, c
    };
    struct Mixer {
        float* past[3] = {};     // of x, b, c: (conv_kernel - 1, rows) inputs of the convolutions, oldest first
        float* state = nullptr;  // (n_heads, state, head)
        Shape shape;
    };

    StateCache(Arena& arena, const Weights& weights);

    // Takes the state of another level: of each head and group what both levels keep, while the rest stays zero. This cache must
    // be new.
    void take(const StateCache& other) const;

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
