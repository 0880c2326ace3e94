#include "kernels/exp.h"
#include "kernels/ops.h"

namespace edge {

silu_mul_t silu_mul_reference;

void silu_mul_reference(float* gate, const float* up, int64_t n) {
    for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + edge_exp(-gate[i])) * up[i];
}

}  // namespace edge
