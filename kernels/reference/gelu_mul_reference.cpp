#include "kernels/exp.h"
#include "kernels/ops.h"

namespace edge {

gelu_mul_t gelu_mul_reference;

void gelu_mul_reference(float* gate, const float* up, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float slope = __builtin_fmaf(gate[i] * gate[i], -0.071354816f, -1.5957691f);
        gate[i] = gate[i] / (1.0f + edge_exp(slope * gate[i])) * up[i];
    }
}

}  // namespace edge
