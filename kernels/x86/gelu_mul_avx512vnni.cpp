#include "kernels/x86/lanes_avx512vnni.h"
#include "kernels/lanes/gelu_mul.h"

namespace edge {

gelu_mul_t gelu_mul_avx512vnni;

void gelu_mul_avx512vnni(float* gate, const float* up, int64_t n) { gelu_mul_row(gate, up, n); }

}  // namespace edge
