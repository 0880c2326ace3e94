// What one session holds in memory of a device: its keys and values, and the rows between two kernels.
#pragma once
#include <cstdint>
#include <vector>

#include "artifact.h"
#include "device.h"
#include "sampler.h"
#include "select.h"
#include "weights.h"

namespace edge::gpu {

inline constexpr int kLogitRows = 8;    // of logits that are computed together where all of a prompt are wanted
inline constexpr int kScoreTokens = 4;  // whose scores a float16 cache keeps at a time
inline constexpr int kChoices = 64;     // lists of candidates for the likeliest tokens (kernels/gpu/rows.cl)

// Row lengths and counts; known from the shapes alone.
struct MemoryShape {
    MemoryShape(const Weights& weights, const Demand& demand);

    uint64_t cache_bytes(const Block& block) const;  // of one attention block, or one mixer's states

    int32_t n;              // tokens of a chunk
    int32_t capacity;       // keys of a cache
    int32_t kv_bits;
    int64_t d_model, vocab_size;
    int64_t wide = 0;       // what a block's first product gives
    int64_t queries = 0, heads = 0, n_heads = 0;
    int64_t mixed = 0, steps = 0;  // behind the convolution of a mixer; its steps and decays
    bool has_states = false;
    int64_t stride = 0, group_stride = 0;  // of quantized activations
};

struct DeviceMemory {
    DeviceMemory(Device& device, const Weights& weights, const MemoryShape& shape, int64_t n_angles);

    const MemoryShape shape;
    std::vector<Buffer> caches;  // by block; of a mixer the inputs that its convolutions remember, and its states
    Buffer tokens;               // (n)
    Buffer angles;               // (n, n_angles, 2) cosines and sines
    Buffer x, y;                 // (n, d_model) the residual; a block's output
    Buffer rows;                 // (n, wide)
    Buffer queries, heads;       // (n, heads, qk), (n, heads, vo)
    Buffer mixed, steps;         // (n, mixed), (n, steps)
    Buffer codes, scales;        // (n, stride) int8, (n, group_stride) float
    Buffer scores;               // (kScoreTokens, heads, capacity), with a float16 cache
    Buffer logits;               // (kLogitRows, vocab_size)
    Buffer best;                 // (kChoices + 1, kMostLikely) LikelyToken, the last row of all
};

struct MemoryBytes {
    uint64_t cache, rows;
    uint64_t largest;  // of the buffers
};
MemoryBytes memory_bytes(const Artifact& artifact, const Weights& weights, const Demand& demand);

}  // namespace edge::gpu
