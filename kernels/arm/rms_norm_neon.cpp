#include "kernels/arm/lanes_neon.h"
#include "kernels/lanes/rms_norm.h"

namespace edge {

rms_norm_t rms_norm_neon;

void rms_norm_neon(const float* x, const float* gain, float eps, int n, float* y) { rms_norm_row(x, gain, eps, n, y); }

}  // namespace edge
