#include "kernels/x86/dot_avxvnni.h"
#include "kernels/x86/matmul_ymm.h"

namespace edge {

matmul_q4_t matmul_q4_avxvnni;

void matmul_q4_avxvnni(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                       int64_t y_stride, bool accumulate) {
    multiply<Ymm<NarrowDot>, CodesQ4>(w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

}  // namespace edge
