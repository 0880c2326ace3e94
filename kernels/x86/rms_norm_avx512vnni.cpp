#include "kernels/x86/lanes_avx512vnni.h"
#include "kernels/lanes/rms_norm.h"

namespace edge {

rms_norm_t rms_norm_avx512vnni;

void rms_norm_avx512vnni(const float* x, const float* gain, float eps, int n, float* y) { rms_norm_row(x, gain, eps, n, y); }

}  // namespace edge
