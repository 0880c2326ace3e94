// The loops around every vectorized matmul: tiles, tokens, groups, edges. A kernel file of one ISA includes this and calls
// multiply<Kernel, Codes>() with the two parts that differ:
//
// Codes: how packed codes become values.
//   explicit Codes(const Panel&); static constexpr int kUnitBytes (64 at 4 bits, 128 at 8)
//   kernels read a unit through it as they like
// Kernel: the arithmetic.
//   kTiles                       tiles that the block kernel takes at once (a power of two)
//   step<Codes>(codes, unit, n_units, scales, row, acc)            one group, one token, one tile of 16 rows
//   unpack<Codes>(codes, unit, n_units, out, unit_stride)          a group of one tile to kUnpackedBytes per unit
//   block<tiles, tokens>(weights, n_units, scales, rows, acc)      one unpacked group, several tokens: 1, 2 or 4
// One token streams the packed codes once (bound by memory); more tokens share each unpacked group (bound by arithmetic).
#pragma once
#include "kernels/float16.h"
#include "kernels/ops.h"

namespace edge {
namespace {

constexpr int kUnpackedBytes = 128;  // a unit of 16 rows x 8 columns as bytes
constexpr int kTokenBlock = 32;      // tokens that share an unpacked group
constexpr int kPrefetchBytes = 4096; // how far ahead of the codes; beyond the end it is harmless

// The activations of one group: of one token, or of the first of several.
struct Rows {
    const int8_t* codes;
    const float* scales;
    const int32_t* sums;
    int64_t stride;        // between tokens
    int64_t group_stride;  // between tokens, of scales and sums
};

inline Rows rows_at(const Activations& a, int64_t token, int column) {
    const int64_t at = token * a.group_stride + column / a.group;
    return {a.codes + token * a.stride + column, a.scales + at, a.sums + at, a.stride, a.group_stride};
}

inline int valid_rows(const Panel& w, int tile) {
    const int left = w.rows - tile * kTileRows;
    return left < kTileRows ? left : kTileRows;
}

inline void load_outputs(const float* y, int n, bool accumulate, float* acc) {
    for (int i = 0; i < kTileRows; ++i) acc[i] = accumulate && i < n ? y[i] : 0.0f;
}

inline void store_outputs(const float* acc, int n, float* y) {
    for (int i = 0; i < n; ++i) y[i] = acc[i];
}

template <class Codes>
inline const uint8_t* unit_at(const Panel& w, int tile, int column) {
    const int64_t n_units = w.columns / kUnitColumns;
    return w.codes + (tile * n_units + column / kUnitColumns) * Codes::kUnitBytes;
}

template <class Kernel, class Codes>
inline void multiply_one(const Panel& w, const Codes& codes, const Activations& a, int a_column, int64_t token, int tile, float* y,
                         bool accumulate) {
    alignas(64) float acc[kTileRows];
    load_outputs(y, valid_rows(w, tile), accumulate, acc);
    const int n_full = w.columns / w.group, rest = w.columns % w.group / kUnitColumns, n_units = w.group / kUnitColumns;
    const uint8_t* unit = unit_at<Codes>(w, tile, 0);
    const uint16_t* scales = w.scales + static_cast<int64_t>(tile) * panel_groups(w) * kTileRows;
    Rows row = rows_at(a, token, a_column);
    typename Kernel::Sum sum(acc);
    if (w.group == 32) {
        for (int g = 0; g < n_full; ++g) {  // the common size, unrolled
            Kernel::template step<Codes>(codes, unit, 4, scales, row, sum);
            unit += 4 * Codes::kUnitBytes, scales += kTileRows, row.codes += 32, ++row.scales, ++row.sums;
        }
    } else {
        for (int g = 0; g < n_full; ++g) {
            Kernel::template step<Codes>(codes, unit, n_units, scales, row, sum);
            unit += n_units * Codes::kUnitBytes, scales += kTileRows, row.codes += w.group, ++row.scales, ++row.sums;
        }
    }
    if (rest > 0) Kernel::template step<Codes>(codes, unit, rest, scales, row, sum);
    sum.store(acc);
    store_outputs(acc, valid_rows(w, tile), y);
}

template <class Kernel, int kTiles>
inline void multiply_group(const uint8_t* weights, int n_units, const float* scales, Rows rows, int n_tokens, float* acc) {
    constexpr int kRows = kTiles * kTileRows;
    int t = 0;
    const auto advance = [&](int n) {
        t += n, acc += n * kRows;
        rows.codes += n * rows.stride, rows.scales += n * rows.group_stride, rows.sums += n * rows.group_stride;
    };
    while (n_tokens - t >= 4) Kernel::template block<kTiles, 4>(weights, n_units, scales, rows, acc), advance(4);
    if (n_tokens - t >= 2) Kernel::template block<kTiles, 2>(weights, n_units, scales, rows, acc), advance(2);
    if (n_tokens - t >= 1) Kernel::template block<kTiles, 1>(weights, n_units, scales, rows, acc);
}

// kTiles tiles with up to kTokenBlock tokens.
template <class Kernel, class Codes, int kTiles>
inline void multiply_block(const Panel& w, const Codes& codes, const Activations& a, int a_column, int64_t token, int n_tokens,
                           int tile, float* y, int64_t y_stride, bool accumulate) {
    constexpr int kRows = kTiles * kTileRows;
    alignas(64) float acc[kTokenBlock * kRows];
    alignas(64) uint8_t weights[kMaxGroup / kUnitColumns * kTiles * kUnpackedBytes];
    alignas(64) float scales[kRows];
    for (int t = 0; t < n_tokens; ++t) {
        for (int i = 0; i < kTiles; ++i) {
            load_outputs(y + t * y_stride + i * kTileRows, valid_rows(w, tile + i), accumulate, acc + t * kRows + i * kTileRows);
        }
    }
    const int n_groups = panel_groups(w);
    for (int g = 0; g < n_groups; ++g) {
        const int column = g * w.group;
        const int n_units = (w.columns - column < w.group ? w.columns - column : w.group) / kUnitColumns;
        for (int i = 0; i < kTiles; ++i) {
            Kernel::template unpack<Codes>(codes, unit_at<Codes>(w, tile + i, column), n_units, weights + i * kUnpackedBytes,
                                           kTiles * kUnpackedBytes);
            Kernel::widen(w.scales + (static_cast<int64_t>(tile + i) * n_groups + g) * kTileRows, scales + i * kTileRows);
        }
        multiply_group<Kernel, kTiles>(weights, n_units, scales, rows_at(a, token, a_column + column), n_tokens, acc);
    }
    for (int t = 0; t < n_tokens; ++t) {
        for (int i = 0; i < kTiles; ++i) {
            store_outputs(acc + t * kRows + i * kTileRows, valid_rows(w, tile + i), y + t * y_stride + i * kTileRows);
        }
    }
}

template <class Kernel, class Codes>
inline void multiply(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end, float* y,
                     int64_t y_stride, bool accumulate) {
    const Codes codes(w);
    if (n_tokens == 1) {
        for (int tile = tile_begin; tile < tile_end; ++tile) {
            multiply_one<Kernel>(w, codes, a, a_column, 0, tile, y + tile * kTileRows, accumulate);
        }
        return;
    }
    int tile = tile_begin;
    const auto blocks = [&]<int kTiles>() {
        for (int64_t t = 0; t < n_tokens; t += kTokenBlock) {
            const int n = n_tokens - t < kTokenBlock ? static_cast<int>(n_tokens - t) : kTokenBlock;
            multiply_block<Kernel, Codes, kTiles>(w, codes, a, a_column, t, n, tile, y + t * y_stride + tile * kTileRows, y_stride,
                                                  accumulate);
        }
        tile += kTiles;
    };
    while (tile + Kernel::kTiles <= tile_end) blocks.template operator()<Kernel::kTiles>();
    while (tile < tile_end) blocks.template operator()<1>();
}

}  // namespace
}  // namespace edge
