#include "mapped_level.h"

#include "errors.h"

namespace edge {
namespace {

uint64_t vector_bytes(const Artifact& artifact, int level) {
    Arena measuring;
    const Weights weights(measuring, artifact, level, nullptr);
    return measuring.used();
}

// A driver that took the few pages of a trial may refuse a whole level. Where nobody else reads it, the device gets a copy instead.
std::shared_ptr<const gpu::DeviceWeights> share(const std::shared_ptr<gpu::Device>& device, const Weights& weights,
                                                const Mapping& mapping, bool may_copy) {
    try {
        return std::make_shared<const gpu::DeviceWeights>(device, weights, mapping.pages());
    } catch (const Error& error) {
        if (!may_copy || error.status != EDGE_OUT_OF_MEMORY) throw;
        return nullptr;
    }
}

}  // namespace

MappedLevel::MappedLevel(int file, const Artifact& artifact, const Choice& choice, const Placement& placement, edge_verify verify,
                         std::span<std::atomic<bool>> passed, const MappedLevel* other,
                         const std::shared_ptr<gpu::Device>& device)
    : choice(choice),
      mapping(file, artifact, choice.level, placement, passed, other && !placement.shared ? &other->mapping : nullptr),
      verifier(artifact, mapping, verify),
      vectors(vector_bytes(artifact, choice.level)),
      weights(vectors, artifact, choice.level, &mapping) {
    if (!device) return;
    if (placement.shared) on_device = share(device, weights, mapping, placement.only_device);
    const bool is_copied = !on_device;
    if (is_copied) on_device = std::make_shared<const gpu::DeviceWeights>(device, weights, std::span<const uint8_t>());
    mapping.require_whole();
    verifier.wait(false);
    if (is_copied && placement.only_device) mapping.drop_pages();
}

}  // namespace edge
