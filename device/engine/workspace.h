// The buffers of one forward pass, sized once for a level, a context length and a number of threads.
#pragma once
#include <cstdint>

#include "arena.h"
#include "kernels/ops.h"
#include "weights.h"

namespace edge {

// Tokens that attention takes together: each block of keys is read once for about 64 query vectors.
inline int attention_tokens(int n_queries) { return n_queries < 64 ? 64 / n_queries : 1; }

// n: tokens of a chunk, as many as a prefill pushes through the layers together (0: 128). Wide rows hold whatever a block needs at that moment: queries, head outputs, gate or up.
struct Workspace {
    Workspace(Arena& arena, const Weights& weights, int32_t context_tokens, int32_t kv_bits, int n_threads, int32_t chunk_tokens);

    struct Thread {
        float* attention;     // work space of the attention kernel
        float* queries;       // of one key/value head: (n_heads / n_kv_heads, qk)
        float* cosine;        // (qk / 2)
        float* sine;
        float* key;           // (qk)
        float* value;         // (vo)
        int8_t* codes;        // of its key or value
    };

    struct Mixer {  // of a block of kind ssm; sizes are 0 where a model has none
        int64_t wide, states, heads;  // row lengths
        float* x;                     // (n, wide) behind the convolution, head-major
        float* projected[2];          // (n, states) b and c before the convolution,
        float* state_rows[2];         // (n, states) and behind it, group-major
        float* step;                  // (n, heads)
        float* decay;                 // (n, heads)
    };

    int32_t n;
    int64_t wide;             // row length of wide1, wide2
    int64_t kv;               // row length of keys, values
    float* x;                 // (n, d_model) the residual
    float* y;                 // (n, d_model) normed residual, then the block's output
    float* wide1;             // (n, wide)
    float* wide2;             // (n, wide)
    float* keys;              // (n, kv)
    float* values;            // (n, kv)
    Mixer mixer;
    Activations activations;  // rows for the widest input and the smallest group
    std::vector<Thread> threads;
};

}  // namespace edge
