#include "kernels/arm/lanes_neon.h"
#include "kernels/lanes/gelu_mul.h"

namespace edge {

gelu_mul_t gelu_mul_neon;

void gelu_mul_neon(float* gate, const float* up, int64_t n) { gelu_mul_row(gate, up, n); }

}  // namespace edge
