#include "state_cache.h"

#include <algorithm>

#include "bytes.h"

namespace edge {
namespace {

constexpr uint64_t kLine = 16;  // floats

uint64_t in_lines(int64_t n_floats) { return align_bytes(static_cast<uint64_t>(n_floats), kLine); }

}  // namespace

StateCache::StateCache(Arena& arena, const Weights& weights) : mixers_(weights.blocks.size()) {
    for (const Block& block : weights.blocks) {
        const SsmBlock& ssm = block.ssm;
        const auto n_past = static_cast<int64_t>(ssm.conv_kernel - 1);
        if (block.kind != BlockKind::ssm || block.dropped) continue;
        n_floats_ += in_lines(n_past * ssm.rows()) + 2 * in_lines(n_past * ssm.states()) + in_lines(ssm.rows() * ssm.state);
    }
    floats_ = arena.take<float>(n_floats_);
    if (!floats_) return;
    float* next = floats_;
    for (size_t b = 0; b < mixers_.size(); ++b) {
        const SsmBlock& ssm = weights.blocks[b].ssm;
        if (weights.blocks[b].kind != BlockKind::ssm || weights.blocks[b].dropped) continue;
        for (int i = 0; i < 3; ++i) {
            mixers_[b].past[i] = next;
            next += in_lines((ssm.conv_kernel - 1) * (i == 0 ? ssm.rows() : ssm.states()));
        }
        mixers_[b].state = next;
        next += in_lines(ssm.rows() * ssm.state);
    }
}

void StateCache::clear() const { std::fill_n(floats_, n_floats_, 0.0f); }

}  // namespace edge
