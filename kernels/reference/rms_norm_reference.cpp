#include <cmath>

#include "kernels/ops.h"
#include "kernels/reference/lane_sum.h"

namespace edge {

rms_norm_t rms_norm_reference;

void rms_norm_reference(const float* x, const float* gain, float eps, int n, float* y) {
    const float mean = lane_dot(x, x, n) / static_cast<float>(n);
    const float inverse = 1.0f / std::sqrt(mean + eps);
    for (int i = 0; i < n; ++i) y[i] = x[i] * inverse * gain[i];
}

}  // namespace edge
