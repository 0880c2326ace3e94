// The 16-lane rule for sums (ops.h) in plain code.
#pragma once

namespace edge {

// Sum of a[i] * b[i], i < n.
static inline float lane_dot(const float* a, const float* b, int n) {
    float lanes[16] = {};
    for (int begin = 0; begin < n; begin += 16) {
        for (int l = 0; l < 16; ++l) {
            const bool inside = begin + l < n;
            lanes[l] = __builtin_fmaf(inside ? a[begin + l] : 0.0f, inside ? b[begin + l] : 0.0f, lanes[l]);
        }
    }
    for (int step = 8; step > 0; step /= 2) {
        for (int l = 0; l < step; ++l) lanes[l] += lanes[l + step];
    }
    return lanes[0];
}

}  // namespace edge
