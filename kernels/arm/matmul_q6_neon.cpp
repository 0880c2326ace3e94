#include "kernels/arm/matmul_neon.h"
#include "kernels/arm/planes_neon.h"

namespace edge {

matmul_q6_t matmul_q6_neon;

void matmul_q6_neon(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                    int64_t y_stride, bool accumulate) {
    multiply<Neon, CodesQ6>(w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

}  // namespace edge
