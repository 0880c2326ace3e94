#include "kernels/x86/lanes_avx512vnni.h"
#include "kernels/lanes/quantize.h"

namespace edge {

quantize_t quantize_avx512vnni;

void quantize_avx512vnni(const float* x, int64_t x_stride, int n_tokens, Activations& out) {
    quantize_rows(x, x_stride, n_tokens, out);
}

}  // namespace edge
