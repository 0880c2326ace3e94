#include "kernels/float16.h"
#include "kernels/ops.h"

namespace edge {

matmul_q4_t matmul_q4_reference;
matmul_q8_t matmul_q8_reference;

namespace {

// The byte of column `column` within a unit whose half holds 4 columns of 16 rows.
int unit_byte(int row, int column) { return 4 * row + column % 4; }

int value_q4(const Panel& w, int tile, int row, int column) {
    const int64_t unit = static_cast<int64_t>(tile) * (w.columns / kUnitColumns) + column / kUnitColumns;
    const uint8_t byte = w.codes[unit * 64 + unit_byte(row, column)];
    return w.codebook[column % kUnitColumns < 4 ? byte & 15 : byte >> 4];
}

int value_q8(const Panel& w, int tile, int row, int column) {
    const int64_t unit = static_cast<int64_t>(tile) * (w.columns / kUnitColumns) + column / kUnitColumns;
    const int half = column % kUnitColumns / 4;
    return static_cast<int8_t>(w.codes[unit * 128 + 64 * half + unit_byte(row, column)]);
}

using value_t = int(const Panel& w, int tile, int row, int column);

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

void matmul_q4_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_q4, w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

void matmul_q8_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_q8, w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

}  // namespace edge
