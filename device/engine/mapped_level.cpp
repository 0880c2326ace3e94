#include "mapped_level.h"

namespace edge {
namespace {

uint64_t vector_bytes(const Artifact& artifact, int level) {
    Arena measuring;
    const Weights weights(measuring, artifact, level, nullptr);
    return measuring.used();
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
    const auto pages = placement.shared ? mapping.copied_pages() : std::span<const uint8_t>();
    on_device = std::make_shared<const gpu::DeviceWeights>(device, weights, pages);
    mapping.require_whole();
    verifier.wait(false);
    if (placement.only_copied) mapping.drop_pages();
}

}  // namespace edge
