#include "kernels/x86/lanes_avx512vnni.h"
#include "kernels/lanes/silu_mul.h"

namespace edge {

silu_mul_t silu_mul_avx512vnni;

void silu_mul_avx512vnni(float* gate, const float* up, int64_t n) { silu_mul_row(gate, up, n); }

}  // namespace edge
