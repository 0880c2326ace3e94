// A level's weights in memory of a device: the bytes of its panels as they lie in the file, and tables that say where.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "artifact.h"
#include "upload.h"
#include "weights.h"

namespace edge::gpu {

inline constexpr int kMaxHead = 512;  // elements of a head (kernels/gpu/attention.cl)

// Offsets count floats from the beginning of `vectors`; -1: there is none.
struct DeviceBlock {
    Buffer weights;
    Product in;   // q, k, v; gate, up; up; or z, x, b, c
    Product out;  // o, down or out
    int32_t norm = -1, bias = -1, post_norm = -1, q_norm = -1, k_norm = -1;
    int32_t row_bias[4] = {-1, -1, -1, -1};  // of q, k; gate, up; or z, x, b, c
    int32_t first_place = 0;         // of its pairs in `places`
    int32_t dt = -1, dt_bias = -1, a = -1, d = -1, gain = -1, conv[3] = {-1, -1, -1};  // of a mixer; dt is widened
};

struct DeviceWeights {
    // `weights` must outlive this, and so must `pages` of the host (may be empty), in which all their panels lie: then kernels read
    // them there. Throws EDGE_OUT_OF_MEMORY.
    DeviceWeights(std::shared_ptr<Device> device, const Weights& weights, std::span<const uint8_t> pages);

    const std::shared_ptr<Device> device;
    Buffer shared;  // the pages
    std::vector<DeviceBlock> blocks;
    Buffer embed_weights, head_weights;  // the second is of no device where the head is the embedding
    Product embed, head;
    int32_t norm = -1;
    Tables tables;
    std::vector<float> frequencies;  // that occur in the model, each once; places count from its beginning
};

// Throws EDGE_UNSUPPORTED when a model has what the kernels of kernels/gpu lack.
void require_supported(const Artifact& artifact);

// Bytes that DeviceWeights takes, known from the header alone; `shared`: the panels take none.
uint64_t weight_bytes(const Artifact& artifact, int level, bool shared);

}  // namespace edge::gpu
