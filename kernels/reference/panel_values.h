// One value of a panel as the file's rules read it (formats/SPEC.md rules 4.4 and 4.5); nothing here is fast.
#pragma once
#include "kernels/ops.h"

namespace edge {
namespace {

inline int64_t unit_of(const Panel& w, int tile, int column) {
    return static_cast<int64_t>(tile) * (w.columns / kUnitColumns) + column / kUnitColumns;
}

// The bits that a plane of `width` bits holds of one code (formats/SPEC.md rule 4.4).
inline int plane_bits(const uint8_t* plane, int width, int row, int column) {
    const int half = column % kUnitColumns / 4, n_bytes = 16 * width;
    const int position = (4 * row + column % 4) ^ (width == 1 ? 32 : 0);
    return plane[position % n_bytes] >> (4 * half + width * (position / n_bytes)) & ((1 << width) - 1);
}

inline int value_q2(const Panel& w, int tile, int row, int column) {
    return w.codebook[plane_bits(w.codes + unit_of(w, tile, column) * 32, 2, row, column)];
}

inline int value_q3(const Panel& w, int tile, int row, int column) {
    const uint8_t* unit = w.codes + unit_of(w, tile, column) * 48;
    return w.codebook[plane_bits(unit, 2, row, column) | plane_bits(unit + 32, 1, row, column) << 2];
}

inline int value_q4(const Panel& w, int tile, int row, int column) {
    return w.codebook[plane_bits(w.codes + unit_of(w, tile, column) * 64, 4, row, column)];
}

inline int value_q6(const Panel& w, int tile, int row, int column) {
    const uint8_t* unit = w.codes + unit_of(w, tile, column) * 96;
    return (plane_bits(unit, 4, row, column) | plane_bits(unit + 64, 2, row, column) << 4) - 32;
}

inline int value_q8(const Panel& w, int tile, int row, int column) {
    const int half = column % kUnitColumns / 4;
    return static_cast<int8_t>(w.codes[unit_of(w, tile, column) * 128 + 64 * half + 4 * row + column % 4]);
}

using value_t = int(const Panel& w, int tile, int row, int column);

inline value_t* value_at(int bits) {
    switch (bits) {
        case 2: return value_q2;
        case 3: return value_q3;
        case 4: return value_q4;
        case 6: return value_q6;
        default: return value_q8;
    }
}

}  // namespace
}  // namespace edge
