#include "kernels/arm/matmul_dotprod.h"
#include "kernels/arm/planes_neon.h"

namespace edge {

matmul_q3_t matmul_q3_dotprod;

void matmul_q3_dotprod(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                       int64_t y_stride, bool accumulate) {
    multiply<Dotprod, CodesQ3>(w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

}  // namespace edge
