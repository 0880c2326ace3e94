#include "kernels/float16.h"
#include "kernels/ops.h"
#include "kernels/reference/panel_values.h"

namespace edge {

matmul_q2_t matmul_q2_reference;
matmul_q3_t matmul_q3_reference;
matmul_q4_t matmul_q4_reference;
matmul_q6_t matmul_q6_reference;
matmul_q8_t matmul_q8_reference;

namespace {

void matmul(value_t* value, const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end,
            float* y, int64_t y_stride, bool accumulate) {
    const int n_groups = panel_groups(w);
    for (int t = 0; t < n_tokens; ++t) {
        const int8_t* codes = a.codes + static_cast<int64_t>(t) * a.stride + a_column;
        const float* a_scales = a.scales + static_cast<int64_t>(t) * a.group_stride + a_column / a.group;
        for (int row = tile_begin * kTileRows; row < tile_end * kTileRows && row < w.rows; ++row) {
            const int tile = row / kTileRows, r = row % kTileRows;
            float* out = y + t * y_stride + row;
            float acc = accumulate ? *out : 0.0f;
            for (int g = 0; g < n_groups; ++g) {
                int32_t sum = 0;
                for (int c = g * w.group; c < (g + 1) * w.group && c < w.columns; ++c) sum += value(w, tile, r, c) * codes[c];
                const float scale = f16_to_f32(w.scales[(static_cast<int64_t>(tile) * n_groups + g) * kTileRows + r]);
                acc = __builtin_fmaf(static_cast<float>(sum), scale * a_scales[g], acc);
            }
            *out = acc;
        }
    }
}

}  // namespace

void matmul_q2_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_at(2), w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

void matmul_q3_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_at(3), w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

void matmul_q4_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_at(4), w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

void matmul_q6_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_at(6), w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

void matmul_q8_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_at(8), w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

}  // namespace edge
