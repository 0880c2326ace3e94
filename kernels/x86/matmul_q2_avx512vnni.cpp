#include "kernels/x86/planes_avx512vnni.h"

namespace edge {

matmul_q2_t matmul_q2_avx512vnni;

void matmul_q2_avx512vnni(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                          int64_t y_stride, bool accumulate) {
    multiply<Vnni512, CodesQ2>(w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

}  // namespace edge
