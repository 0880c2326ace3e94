#include "kernels/x86/lanes_avx512vnni.h"
#include "kernels/lanes/softcap.h"

namespace edge {

softcap_t softcap_avx512vnni;

void softcap_avx512vnni(float* x, float cap, int64_t n) { softcap_row(x, cap, n); }

}  // namespace edge
