#include "kernels/arm/lanes_neon.h"
#include "kernels/lanes/softcap.h"

namespace edge {

softcap_t softcap_neon;

void softcap_neon(float* x, float cap, int64_t n) { softcap_row(x, cap, n); }

}  // namespace edge
