#include "kernels/x86/dot_avx2.h"
#include "kernels/x86/matmul_ymm.h"

namespace edge {

matmul_q8_t matmul_q8_avx2;

void matmul_q8_avx2(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                    int64_t y_stride, bool accumulate) {
    multiply<Ymm<ByteDot>, CodesQ8>(w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

}  // namespace edge
