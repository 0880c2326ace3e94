#include "kernels/x86/lanes_avx2.h"
#include "kernels/lanes/quantize.h"

namespace edge {

quantize_t quantize_avx2;

void quantize_avx2(const float* x, int64_t x_stride, int n_tokens, Activations& out) {
    quantize_rows(x, x_stride, n_tokens, out);
}

}  // namespace edge
