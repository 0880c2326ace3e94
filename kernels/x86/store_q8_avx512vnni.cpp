#include "kernels/x86/lanes_avx512vnni.h"
#include "kernels/lanes/store_q8.h"

namespace edge {

store_q8_t store_q8_avx512vnni;

void store_q8_avx512vnni(const float* x, int n, int8_t* codes, uint16_t* scale) { store_vector(x, n, codes, scale); }

}  // namespace edge
