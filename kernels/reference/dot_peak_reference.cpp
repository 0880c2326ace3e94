#include "kernels/ops.h"

namespace edge {

dot_peak_t dot_peak_reference;

int64_t dot_peak_reference(int64_t rounds, int32_t* sink) {
    uint32_t sums[8] = {};
    for (int64_t round = 0; round < rounds; ++round) {
        const uint32_t factor = static_cast<uint32_t>(round);
        for (uint32_t i = 0; i < 8; ++i) sums[i] += factor * (factor + i);
    }
    *sink = 0;
    for (const uint32_t sum : sums) *sink ^= static_cast<int32_t>(sum);
    return rounds * 8;
}

}  // namespace edge
