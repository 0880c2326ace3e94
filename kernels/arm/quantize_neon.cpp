#include "kernels/arm/lanes_neon.h"
#include "kernels/lanes/quantize.h"

namespace edge {

quantize_t quantize_neon;

void quantize_neon(const float* x, int64_t x_stride, int n_tokens, Activations& out) {
    quantize_rows(x, x_stride, n_tokens, out);
}

}  // namespace edge
