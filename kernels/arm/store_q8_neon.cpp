#include "kernels/arm/lanes_neon.h"
#include "kernels/lanes/store_q8.h"

namespace edge {

store_q8_t store_q8_neon;

void store_q8_neon(const float* x, int n, int8_t* codes, uint16_t* scale) { store_vector(x, n, codes, scale); }

}  // namespace edge
