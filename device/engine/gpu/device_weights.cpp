#include "device_weights.h"

#include <map>
#include <utility>

#include "bytes.h"
#include "errors.h"
#include "kernels/float16.h"
#include "upload.h"

namespace edge::gpu {
namespace {

void upload_mixer(Upload& upload, const Block& block, int32_t d_model, DeviceBlock& out) {
    const SsmBlock& ssm = block.ssm;
    const auto rows = static_cast<int32_t>(ssm.rows()), states = static_cast<int32_t>(ssm.states());
    const int32_t sizes[] = {rows, rows, states, states};
    for (int i = 0; i < 4; ++i) out.row_bias[i] = upload.vector(block.row_bias[i], sizes[i]);
    for (int i = 0; i < 3; ++i) out.conv[i] = upload.vector(ssm.conv[i], int64_t{sizes[i + 1]} * (ssm.conv_kernel + 1));
    std::vector<float> dt(static_cast<size_t>(int64_t{ssm.n_heads} * d_model));
    for (size_t i = 0; i < dt.size(); ++i) dt[i] = f16_to_f32(ssm.dt[i]);
    out.dt = upload.vector(dt.data(), static_cast<int64_t>(dt.size()));
    out.dt_bias = upload.vector(ssm.dt_bias, ssm.n_heads);
    out.a = upload.vector(ssm.a, ssm.n_heads);
    out.d = upload.vector(ssm.d, ssm.n_heads);
    out.gain = upload.vector(ssm.gain, rows);
    out.weights = upload.weights({{&out.in, {{&ssm.z, 0}, {&ssm.x, rows}, {&ssm.b, 2 * rows}, {&ssm.c, 2 * rows + states}}},
                                  {&out.out, {{&ssm.out, 0}}}});
}

DeviceBlock upload_block(Upload& upload, const Block& block, int32_t d_model, std::vector<float>& frequencies) {
    DeviceBlock out;
    out.bias = upload.vector(block.bias, d_model);
    if (block.dropped) return out;
    out.norm = upload.vector(block.norm, d_model);
    out.post_norm = upload.vector(block.post_norm, d_model);
    if (block.kind == BlockKind::ssm) {
        upload_mixer(upload, block, d_model, out);
        return out;
    }
    if (block.kind == BlockKind::attention) {
        const int32_t n_q = block.n_heads * block.qk, n_k = block.n_kv_heads * block.qk;
        out.q_norm = upload.vector(block.q_norm, block.qk);
        out.k_norm = upload.vector(block.k_norm, block.qk);
        out.row_bias[0] = upload.vector(block.row_bias[0], n_q);
        out.row_bias[1] = upload.vector(block.row_bias[1], n_k);
        out.first_place = upload.pairs(block.inv_freq, n_k / 2, frequencies);
        out.weights = upload.weights({{&out.in, {{&block.q, 0}, {&block.k, n_q}, {&block.v, n_q + n_k}}}, {&out.out, {{&block.o, 0}}}});
        return out;
    }
    out.row_bias[0] = upload.vector(block.row_bias[0], block.width);
    out.row_bias[1] = upload.vector(block.row_bias[1], block.width);
    if (block.gated) {
        out.weights = upload.weights({{&out.in, {{&block.gate, 0}, {&block.up, block.width}}}, {&out.out, {{&block.down, 0}}}});
    } else {
        out.weights = upload.weights({{&out.in, {{&block.up, 0}}}, {&out.out, {{&block.down, 0}}}});
    }
    return out;
}

// The same sums, by the header.
class Count {
public:
    Count(const Artifact& artifact, int level, bool shared) : artifact_(artifact), level_(level), shared_(shared) {}

    void panels(const std::vector<PanelPiece>& pieces) {
        for (const PanelPiece& piece : pieces) {
            if (!used(piece.run)) continue;
            const int64_t rows = piece.row_end - piece.row_begin, columns = piece.column_end - piece.column_begin;
            const int64_t n_tiles = (rows + kTileRows - 1) / kTileRows, n_groups = (columns + piece.group - 1) / piece.group;
            const int64_t tile_bytes = columns * piece.bits * 2 + n_groups * kTileRows * 2;
            panel_bytes_ += align_bytes(static_cast<uint64_t>(n_tiles * tile_bytes), kPanelAlignment);
            n_tiles_ += static_cast<uint64_t>(n_tiles);
            if (has_codebook(piece.bits)) books_[piece.codebook] = true;
        }
    }
    void vector(const std::vector<VectorPiece>& pieces) {
        for (const VectorPiece& piece : pieces) n_floats_ += used(piece.run) ? static_cast<uint64_t>(piece.size) : 0;
    }
    void pairs(int64_t n) { n_places_ += static_cast<uint64_t>(n); }
    void end_buffer() {
        if (!shared_) total_ += buffer_bytes(panel_bytes_);
        panel_bytes_ = 0;
    }
    uint64_t total() const {
        return total_ + buffer_bytes(n_tiles_ * kTileWords * 4) + buffer_bytes(books_.size() * 16) + buffer_bytes(n_floats_ * 4) +
               buffer_bytes(n_places_ * 4);
    }

private:
    bool used(int32_t run) const { return artifact_.runs[static_cast<size_t>(run)].used_by(level_); }

    const Artifact& artifact_;
    int level_;
    bool shared_;
    uint64_t total_ = 0, panel_bytes_ = 0, n_tiles_ = 0, n_floats_ = 0, n_places_ = 0;
    std::map<int32_t, bool> books_;
};

}  // namespace

DeviceWeights::DeviceWeights(std::shared_ptr<Device> own, const Weights& weights, std::span<const uint8_t> pages)
    : device(std::move(own)), shared(pages.empty() ? Buffer() : Buffer::shared(*device, pages.data(), pages.size())) {
    const bool is_shared = !pages.empty();
    Upload upload(*device, is_shared ? &shared : nullptr);
    blocks.reserve(weights.blocks.size());
    for (const Block& block : weights.blocks) {
        DeviceBlock& last = blocks.emplace_back(upload_block(upload, block, weights.d_model, frequencies));
        last.in.weights = last.out.weights = is_shared ? &shared : &last.weights;
    }
    norm = upload.vector(weights.norm, weights.d_model);
    embed_weights = upload.weights({{&embed, {{&weights.embed, 0}}}});
    embed.weights = is_shared ? &shared : &embed_weights;
    head = embed;
    if (weights.head.panels[0].panel.codes != weights.embed.panels[0].panel.codes) {
        head_weights = upload.weights({{&head, {{&weights.head, 0}}}});
        head.weights = is_shared ? &shared : &head_weights;
    }
    tables = upload.finish();
}

void require_supported(const Artifact& artifact) {
    for (const BlockSpec& block : artifact.model.blocks) {
        const bool is_attention = block.kind == BlockKind::attention;
        if (is_attention && (block.axes[0].size > kMaxHead || block.axes[1].size > kMaxHead)) {
            throw UnsupportedError("`" + artifact.model.name + "` has heads of more than " + std::to_string(kMaxHead) +
                                   " elements, for which the GPU backends have no kernels\nhint: use backend `cpu`");
        }
    }
}

uint64_t weight_bytes(const Artifact& artifact, int level, bool shared) {
    Count count(artifact, level, shared);
    const auto& allocation = artifact.levels[static_cast<size_t>(level)].allocation;
    for (size_t b = 0; b < allocation.size(); ++b) {
        const BlockSpec& block = artifact.model.blocks[b];
        count.vector(block.bias);
        if (allocation[b][0] == 0) continue;
        for (const auto* vector : {&block.norm, &block.post_norm, &block.q_norm, &block.k_norm, &block.ssm.dt, &block.ssm.dt_bias,
                                   &block.ssm.a, &block.ssm.d, &block.ssm.gain}) {
            count.vector(*vector);
        }
        for (const auto& bias : block.row_bias) count.vector(bias);
        for (const auto& taps : block.ssm.conv) count.vector(taps);
        if (block.kind == BlockKind::attention) count.pairs(int64_t{block.n_kv_heads} * allocation[b][0] / 2);
        for (const auto& weight : block.weights) count.panels(weight);
        count.end_buffer();
    }
    count.vector(artifact.model.norm);
    count.panels(artifact.model.embed);
    count.end_buffer();
    if (!artifact.model.tied_head) {
        count.panels(artifact.model.head);
        count.end_buffer();
    }
    return count.total();
}

}  // namespace edge::gpu
