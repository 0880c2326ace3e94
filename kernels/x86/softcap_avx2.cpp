#include "kernels/x86/lanes_avx2.h"
#include "kernels/lanes/softcap.h"

namespace edge {

softcap_t softcap_avx2;

void softcap_avx2(float* x, float cap, int64_t n) { softcap_row(x, cap, n); }

}  // namespace edge
