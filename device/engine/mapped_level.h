// One level in memory: its runs, their check, and its weights. It never changes; another level is another one of these.
#pragma once
#include <atomic>
#include <span>

#include "arena.h"
#include "artifact.h"
#include "gpu/device_weights.h"
#include "mapping.h"
#include "select.h"
#include "verifier.h"
#include "weights.h"

namespace edge {

struct MappedLevel {
    // `passed`: a flag for each run of the file; `other` (may be nullptr): a level of the same file. What both use lies in
    // memory once. `device` (may be nullptr): it reads the weights where they lie, if `placement` says so and the driver takes that
    // many pages; otherwise they are copied there. Throws Error.
    MappedLevel(int file, const Artifact& artifact, const Choice& choice, const Placement& placement, edge_verify verify,
                std::span<std::atomic<bool>> passed, const MappedLevel* other, const std::shared_ptr<gpu::Device>& device);

    const Choice choice;
    const Mapping mapping;
    Verifier verifier;  // hashes in the background while the rest is set up
    Arena vectors;
    const Weights weights;
    std::shared_ptr<const gpu::DeviceWeights> on_device;  // nullptr: the level runs on the CPU alone
};

}  // namespace edge
