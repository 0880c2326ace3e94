#include "kernels/arm/lanes_neon.h"
#include "kernels/lanes/silu_mul.h"

namespace edge {

silu_mul_t silu_mul_neon;

void silu_mul_neon(float* gate, const float* up, int64_t n) { silu_mul_row(gate, up, n); }

}  // namespace edge
