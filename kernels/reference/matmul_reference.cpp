#include "kernels/float16.h"
#include "kernels/ops.h"

namespace edge {

matmul_q2_t matmul_q2_reference;
matmul_q3_t matmul_q3_reference;
matmul_q4_t matmul_q4_reference;
matmul_q6_t matmul_q6_reference;
matmul_q8_t matmul_q8_reference;

namespace {

int64_t unit_of(const Panel& w, int tile, int column) {
    return static_cast<int64_t>(tile) * (w.columns / kUnitColumns) + column / kUnitColumns;
}

// The bits that a plane of `width` bits holds of one code (formats/SPEC.md rule 4.4).
int plane_bits(const uint8_t* plane, int width, int row, int column) {
    const int half = column % kUnitColumns / 4, n_bytes = 16 * width;
    const int position = (4 * row + column % 4) ^ (width == 1 ? 32 : 0);
    return plane[position % n_bytes] >> (4 * half + width * (position / n_bytes)) & ((1 << width) - 1);
}

int value_q2(const Panel& w, int tile, int row, int column) {
    return w.codebook[plane_bits(w.codes + unit_of(w, tile, column) * 32, 2, row, column)];
}

int value_q3(const Panel& w, int tile, int row, int column) {
    const uint8_t* unit = w.codes + unit_of(w, tile, column) * 48;
    return w.codebook[plane_bits(unit, 2, row, column) | plane_bits(unit + 32, 1, row, column) << 2];
}

int value_q4(const Panel& w, int tile, int row, int column) {
    return w.codebook[plane_bits(w.codes + unit_of(w, tile, column) * 64, 4, row, column)];
}

int value_q6(const Panel& w, int tile, int row, int column) {
    const uint8_t* unit = w.codes + unit_of(w, tile, column) * 96;
    return (plane_bits(unit, 4, row, column) | plane_bits(unit + 64, 2, row, column) << 4) - 32;
}

int value_q8(const Panel& w, int tile, int row, int column) {
    const int half = column % kUnitColumns / 4;
    return static_cast<int8_t>(w.codes[unit_of(w, tile, column) * 128 + 64 * half + 4 * row + column % 4]);
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

void matmul_q2_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_q2, w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

void matmul_q3_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_q3, w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

void matmul_q4_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_q4, w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

void matmul_q6_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_q6, w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

void matmul_q8_reference(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                         int64_t y_stride, bool accumulate) {
    matmul(value_q8, w, a, a_column, n_tokens, tile_begin, tile_end, y, y_stride, accumulate);
}

}  // namespace edge
