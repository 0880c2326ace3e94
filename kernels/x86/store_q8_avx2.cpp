#include "kernels/x86/lanes_avx2.h"
#include "kernels/lanes/store_q8.h"

namespace edge {

store_q8_t store_q8_avx2;

void store_q8_avx2(const float* x, int n, int8_t* codes, uint16_t* scale) { store_vector(x, n, codes, scale); }

}  // namespace edge
