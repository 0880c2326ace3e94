#include "kernels/x86/lanes_avx2.h"
#include "kernels/lanes/rms_norm.h"

namespace edge {

rms_norm_t rms_norm_avx2;

void rms_norm_avx2(const float* x, const float* gain, float eps, int n, float* y) { rms_norm_row(x, gain, eps, n, y); }

}  // namespace edge
