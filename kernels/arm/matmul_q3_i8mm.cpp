#include "kernels/arm/matmul_i8mm.h"
#include "kernels/arm/planes_neon.h"

namespace edge {

matmul_q3_t matmul_q3_i8mm;

void matmul_q3_i8mm(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                    int64_t y_stride, bool accumulate) {
    multiply<I8mm, CodesQ3>(w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

}  // namespace edge
