// Keys and values of the tokens seen so far, at the level's own head sizes.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "arena.h"
#include "weights.h"

namespace edge {

// Per block, key/value head and token one vector of keys and one of values: int8 codes with a float16 scale each, laid out
// for the dot products of kernels/ops.h, or float16 in rows. Heads of one block lie apart so that attention reads one
// head's tokens in sequence.
class KvCache {
public:
    KvCache(Arena& arena, const Weights& weights, int32_t n_tokens, int32_t bits);

    // Stores key (qk) and value (vo) of one head for the token at `position`; `codes` is scratch for the longer of the two.
    void store(int block, int head, int64_t position, const float* key, const float* value, int8_t* codes) const;

    // Takes the first n_tokens entries of another level's cache: of each head what both levels keep, while the rest stays zero.
    // This cache must be new; the other one is of no use afterwards, its memory is given back block by block.
    void take(const KvCache& other, int64_t n_tokens) const;

    // Fills the cache fields of `args` for this head.
    void view(int block, int head, AttentionArgs& args) const;

    // Where one head keeps something of each token, from token 0 on: row_tokens of them in row_bytes.
    struct Rows {
        uint8_t* data;
        int64_t row_tokens, row_bytes;
    };
    // Keys, their scales, values, their scales; of a float16 cache, scales have rows of no bytes.
    std::array<Rows, 4> rows(int block, int head) const;
    int32_t n_heads(int block) const { return keys_[static_cast<size_t>(block)].n_heads; }

    // Of the first n_tokens entries of a block: codes and scales of all heads.
    int64_t bytes(int block, int64_t n_tokens) const;

    int32_t bits() const { return bits_; }

private:
    struct Plane {  // of one block: keys or values of all heads
        uint8_t* data = nullptr;
        uint16_t* scales = nullptr;
        int32_t n_heads = 0, dims = 0;
        int64_t held_dims = 0;    // dims, and what fills them up
        int64_t head_bytes = 0;   // from one head to the next
        int64_t head_scales = 0;
    };
    Plane allot(Arena& arena, int32_t n_heads, int32_t dims, int64_t held_dims) const;
    void take(const Plane& from, const Plane& to, int64_t n_tokens, int64_t row_tokens) const;

    int64_t n_tokens_;  // with 8 bits in whole blocks of keys
    int32_t bits_;
    std::vector<Plane> keys_, values_;  // by block; empty planes for other blocks
};

}  // namespace edge
