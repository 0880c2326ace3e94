#include "state_cache.h"

#include <algorithm>

#include "bytes.h"

namespace edge {
namespace {

constexpr uint64_t kLine = 16;  // floats

uint64_t in_lines(int64_t n_floats) { return align_bytes(static_cast<uint64_t>(n_floats), kLine); }

int64_t state_floats(const StateCache::Shape& shape) { return int64_t{shape.n_heads} * shape.state * shape.head; }

// The beginning of each of n rows; floats.
void copy_rows(const float* from, int64_t from_length, float* to, int64_t to_length, int64_t n) {
    for (int64_t i = 0; i < n; ++i) std::copy_n(from + i * from_length, std::min(from_length, to_length), to + i * to_length);
}

}  // namespace

StateCache::StateCache(Arena& arena, const Weights& weights) : mixers_(weights.blocks.size()) {
    for (size_t b = 0; b < mixers_.size(); ++b) {
        const Block& block = weights.blocks[b];
        const SsmBlock& ssm = block.ssm;
        if (block.kind != BlockKind::ssm || block.dropped) continue;
        mixers_[b].shape = {ssm.n_heads, ssm.conv_kernel - 1, ssm.state, ssm.head, {ssm.rows(), ssm.states(), ssm.states()}};
        const Shape& shape = mixers_[b].shape;
        for (const int64_t rows : shape.rows) n_floats_ += in_lines(shape.n_past * rows);
        n_floats_ += in_lines(state_floats(shape));
    }
    floats_ = arena.take<float>(n_floats_);
    if (!floats_) return;
    float* next = floats_;
    for (Mixer& mixer : mixers_) {
        for (int i = 0; i < 3; ++i) {
            mixer.past[i] = next;
            next += in_lines(mixer.shape.n_past * mixer.shape.rows[i]);
        }
        mixer.state = next;
        next += in_lines(state_floats(mixer.shape));
    }
}

// The rows of x, b and c lie in the order of their axes, and the states of a head in that of both axes: prefixes of either.
void StateCache::take(const StateCache& other) const {
    for (size_t b = 0; b < mixers_.size(); ++b) {
        const Mixer &from = other.mixers_[b], &to = mixers_[b];
        const Shape &was = from.shape, &is = to.shape;
        for (int i = 0; i < 3; ++i) copy_rows(from.past[i], was.rows[i], to.past[i], is.rows[i], std::min(was.n_past, is.n_past));
        for (int64_t h = 0; h < std::min(was.n_heads, is.n_heads); ++h) {
            copy_rows(from.state + h * was.state * was.head, was.head, to.state + h * is.state * is.head, is.head,
                      std::min(was.state, is.state));
        }
    }
}

void StateCache::clear() const { std::fill_n(floats_, n_floats_, 0.0f); }

}  // namespace edge
