#include "kernels/x86/lanes_avx2.h"
#include "kernels/lanes/silu_mul.h"

namespace edge {

silu_mul_t silu_mul_avx2;

void silu_mul_avx2(float* gate, const float* up, int64_t n) { silu_mul_row(gate, up, n); }

}  // namespace edge
