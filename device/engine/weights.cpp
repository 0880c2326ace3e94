#include "weights.h"

#include <cmath>
#include <cstring>

#include "kernels/float16.h"

namespace edge {
namespace {

matmul_t* matmul_of(int32_t bits) {
    switch (bits) {
        case 2: return ops().matmul_q2;
        case 3: return ops().matmul_q3;
        case 4: return ops().matmul_q4;
        case 6: return ops().matmul_q6;
        default: return ops().matmul_q8;
    }
}

// Collects what a level uses of each weight and vector.
class Binder {
public:
    Binder(Arena& arena, const Artifact& artifact, int level, const Mapping* mapping)
        : arena_(arena), artifact_(artifact), level_(level), mapping_(mapping) {
        codebooks_ = arena.take<Codebook>(artifact.codebooks.size());
        if (mapping) std::memcpy(codebooks_, artifact.codebooks.data(), artifact.codebooks.size() * sizeof(Codebook));
    }

    Weight weight(const std::vector<PanelPiece>& pieces, bool column_panels) {
        Weight weight;
        weight.column_panels = column_panels;
        size_t n_used = 0;
        for (const PanelPiece& piece : pieces) {
            if (!used(piece.run)) continue;
            weight.rows = piece.row_end;
            weight.columns = piece.column_end;
            weight.group = piece.group;
            ++n_used;
        }
        auto* panels = arena_.take<WeightPanel>(n_used);
        if (!mapping_) return weight;
        weight.panels = {panels, n_used};
        for (const PanelPiece& piece : pieces) {
            if (!used(piece.run)) continue;
            *panels = view(piece);
            weight.bytes += panels->tile_bytes * panel_tiles(panels->panel);
            weight.row_tile_bytes += panels->tile_bytes;
            ++panels;
        }
        return weight;
    }

    // F32 pieces side by side; nullptr when there are none.
    const float* gather(const std::vector<VectorPiece>& pieces) {
        uint64_t size = 0;
        for (const VectorPiece& piece : pieces) size += used(piece.run) ? static_cast<uint64_t>(piece.size) : 0;
        auto* values = arena_.take<float>(size);
        if (!mapping_ || size == 0) return nullptr;
        uint64_t at = 0;
        for (const VectorPiece& piece : pieces) {
            if (!used(piece.run) || piece.size == 0) continue;
            std::memcpy(values + at, mapping_->at(piece.begin), static_cast<size_t>(piece.size) * sizeof(float));
            at += static_cast<uint64_t>(piece.size);
        }
        return values;
    }

    // The one F16 bias of this level, widened; nullptr when there is none.
    const float* widen(const std::vector<VectorPiece>& pieces) {
        for (const VectorPiece& piece : pieces) {
            if (!used(piece.run)) continue;
            auto* values = arena_.take<float>(static_cast<uint64_t>(piece.size));
            if (!mapping_) return nullptr;
            const auto* halves = reinterpret_cast<const uint16_t*>(mapping_->at(piece.begin));
            for (int32_t i = 0; i < piece.size; ++i) values[i] = f16_to_f32(halves[i]);
            return values;
        }
        return nullptr;
    }

    // The one F16 vector of all levels, where it lies.
    const uint16_t* halves(const std::vector<VectorPiece>& pieces) const {
        return mapping_ ? reinterpret_cast<const uint16_t*>(mapping_->at(pieces[0].begin)) : nullptr;
    }

    // Taps and bias of each row, as (n_taps, n_rows).
    const float* taps(const std::vector<VectorPiece>& pieces, int64_t n_rows, int32_t n_taps) {
        auto* values = arena_.take<float>(static_cast<uint64_t>(n_rows * n_taps));
        each_value(pieces, [&](int64_t at, float value) { values[at % n_taps * n_rows + at / n_taps] = value; });
        return values;
    }

    // The gain of a gated norm, head-major. rms_norm divides by the width that is kept: the gain makes up for it.
    const float* gated_gain(const std::vector<VectorPiece>& pieces, const SsmBlock& ssm, int32_t full_head) {
        auto* values = arena_.take<float>(static_cast<uint64_t>(ssm.rows()));
        const auto factor = static_cast<float>(std::sqrt(static_cast<double>(full_head) / ssm.head));
        each_value(pieces, [&](int64_t at, float value) {
            const int64_t run = at / ssm.head_quantum, head = run % ssm.n_heads;
            values[head * ssm.head + run / ssm.n_heads * ssm.head_quantum + at % ssm.head_quantum] = value * factor;
        });
        return values;
    }

private:
    // Calls `put` with place and value of everything in the pieces that the level uses, side by side.
    template <typename Put>
    void each_value(const std::vector<VectorPiece>& pieces, Put&& put) const {
        int64_t at = 0;
        for (const VectorPiece& piece : pieces) {
            if (!mapping_ || !used(piece.run) || piece.size == 0) continue;
            const auto* from = reinterpret_cast<const float*>(mapping_->at(piece.begin));
            for (int32_t i = 0; i < piece.size; ++i) put(at++, from[i]);
        }
    }

    bool used(int32_t run) const { return artifact_.runs[static_cast<size_t>(run)].used_by(level_); }

    WeightPanel view(const PanelPiece& piece) const {
        WeightPanel out{};
        Panel& panel = out.panel;
        panel.rows = piece.row_end - piece.row_begin;
        panel.columns = piece.column_end - piece.column_begin;
        panel.group = piece.group;
        const int64_t code_bytes = int64_t{panel.columns} * piece.bits * 2;  // of one tile
        panel.codes = mapping_->at(piece.begin);
        panel.scales = reinterpret_cast<const uint16_t*>(panel.codes + panel_tiles(panel) * code_bytes);
        panel.codebook = has_codebook(piece.bits) ? codebooks_[piece.codebook].data() : nullptr;
        out.matmul = matmul_of(piece.bits);
        out.bits = piece.bits;
        out.row_begin = piece.row_begin;
        out.column_begin = piece.column_begin;
        out.tile_bytes = code_bytes + int64_t{panel_groups(panel)} * kTileRows * 2;
        return out;
    }

    Arena& arena_;
    const Artifact& artifact_;
    int level_;
    const Mapping* mapping_;
    Codebook* codebooks_;
};

SsmBlock bind_ssm(Binder& binder, const BlockSpec& spec, const std::array<int32_t, 2>& kept, float norm_eps) {
    const SsmSpec& own = spec.ssm;
    SsmBlock ssm;
    ssm.n_heads = spec.n_heads;
    ssm.n_groups = own.n_groups;
    ssm.norm_groups = own.norm_groups;
    ssm.conv_kernel = own.conv_kernel;
    ssm.state = kept[0];
    ssm.head = kept[1];
    ssm.state_quantum = spec.axes[0].quantum;
    ssm.head_quantum = spec.axes[1].quantum;
    ssm.step_least = own.step_least;
    ssm.step_most = own.step_most;
    if (ssm.head == 0) return ssm;  // dropped
    ssm.norm_eps = norm_eps * (static_cast<float>(ssm.head) / static_cast<float>(spec.axes[1].size));
    ssm.dt = binder.halves(own.dt);
    ssm.dt_bias = binder.gather(own.dt_bias);
    ssm.a = binder.gather(own.a);
    ssm.d = binder.gather(own.d);
    for (int i = 0; i < 3; ++i) {
        ssm.conv[i] = binder.taps(own.conv[i], i == 0 ? ssm.rows() : ssm.states(), ssm.conv_kernel + 1);
    }
    ssm.gain = binder.gated_gain(own.gain, ssm, spec.axes[1].size);
    ssm.z = binder.weight(spec.weights[kZ], false);
    ssm.x = binder.weight(spec.weights[kX], false);
    ssm.b = binder.weight(spec.weights[kB], false);
    ssm.c = binder.weight(spec.weights[kC], false);
    ssm.out = binder.weight(spec.weights[kOut], true);
    return ssm;
}

Block bind_block(Binder& binder, const BlockSpec& spec, const std::array<int32_t, 2>& kept, float norm_eps) {
    Block block;
    block.kind = spec.kind;
    block.dropped = kept[0] == 0;
    block.norm = binder.gather(spec.norm);
    block.bias = binder.widen(spec.bias);
    block.post_norm = binder.gather(spec.post_norm);
    for (int i = 0; i < 4; ++i) block.row_bias[i] = binder.gather(spec.row_bias[i]);
    if (spec.kind == BlockKind::attention) {
        block.n_heads = spec.n_heads;
        block.n_kv_heads = spec.n_kv_heads;
        block.qk = kept[0];
        block.vo = kept[1];
        block.qk_quantum = spec.axes[0].quantum;
        block.vo_quantum = spec.axes[1].quantum;
        block.softmax_scale = spec.softmax_scale;
        block.softcap = spec.softcap;
        block.window = spec.window;
        block.q_norm = binder.gather(spec.q_norm);
        block.k_norm = binder.gather(spec.k_norm);
        block.inv_freq = binder.gather(spec.inv_freq);
        block.q = binder.weight(spec.weights[kQ], false);
        block.k = binder.weight(spec.weights[kK], false);
        block.v = binder.weight(spec.weights[kV], false);
        block.o = binder.weight(spec.weights[kO], true);
    } else if (spec.kind == BlockKind::ssm) {
        block.ssm = bind_ssm(binder, spec, kept, norm_eps);
    } else {
        block.width = kept[0];
        block.activation = spec.activation;
        block.gated = spec.gated;
        block.gate = binder.weight(spec.weights[kGate], false);
        block.up = binder.weight(spec.weights[kUp], false);
        block.down = binder.weight(spec.weights[kDown], true);
    }
    return block;
}

}  // namespace

Weights::Weights(Arena& arena, const Artifact& artifact, int level, const Mapping* mapping)
    : d_model(artifact.model.d_model),
      vocab_size(artifact.model.vocab_size),
      norm_eps(artifact.model.norm_eps),
      embedding_scale(artifact.model.embedding_scale),
      logit_softcap(artifact.model.logit_softcap) {
    Binder binder(arena, artifact, level, mapping);
    const auto& allocation = artifact.levels[static_cast<size_t>(level)].allocation;
    blocks.reserve(allocation.size());
    for (size_t b = 0; b < allocation.size(); ++b) {
        blocks.push_back(bind_block(binder, artifact.model.blocks[b], allocation[b], norm_eps));
    }
    norm = binder.gather(artifact.model.norm);
    embed = binder.weight(artifact.model.embed, false);
    head = binder.weight(artifact.model.head, false);
}

uint64_t Weights::token_bytes() const {
    int64_t bytes = head.bytes;
    for (const Block& block : blocks) {
        if (block.dropped) continue;
        for (const Weight* weight : {&block.q, &block.k, &block.v, &block.o, &block.gate, &block.up, &block.down}) {
            bytes += weight->bytes;
        }
        const SsmBlock& ssm = block.ssm;
        for (const Weight* weight : {&ssm.z, &ssm.x, &ssm.b, &ssm.c, &ssm.out}) bytes += weight->bytes;
        bytes += int64_t{ssm.n_heads} * d_model * 2;
    }
    return static_cast<uint64_t>(bytes);
}

}  // namespace edge
