// The loops around every vectorized matmul: tiles, tokens, groups, edges. A kernel file of one ISA includes this and calls
// multiply<Kernel, Codes>() with the two parts that differ:
//
// Codes: how packed codes become values.
//   explicit Codes(const Panel&); static constexpr int kUnitBytes (64 at 4 bits, 128 at 8)
//   kernels read a unit through it as they like
// Kernel: the arithmetic.
//   kTiles, kTokens              tiles and tokens that one block() takes (kTokens <= 8; fewer are left over at the ends)
//   Sum                          16 sums of one tile in registers; Sum(const float*), store(float*)
//   step<Codes>(codes, unit, n_units, scales, row, sum)            one group, one token, one tile of 16 rows
//   widen(halves, out)                                             16 scales
//   unpack<Codes>(codes, unit, n_units, out, unit_stride)          a group of one tile to kUnpackedBytes per unit
//   block<tiles, tokens>(chunk, rows, y, y_stride, accumulate)     several unpacked groups, several tokens
// One token streams the packed codes once (bound by memory); more tokens share a chunk of unpacked groups that stays in the
// first-level cache (bound by arithmetic).
#pragma once
#include "kernels/float16.h"
#include "kernels/ops.h"

namespace edge {
namespace {

constexpr int kUnpackedBytes = 128;  // a unit of 16 rows x 8 columns as bytes
constexpr int kChunkUnits = 72;      // units of a chunk at most: 9 KB of each tile
constexpr int kPrefetchBytes = 8192; // how far ahead of the codes; beyond the end it is harmless
constexpr int kPrefetchLine = 64;    // wider units keep memory busy on their own: there a prefetch costs a third of the rate

// The activations of one group: of one token, or of the first of several.
struct Rows {
    const int8_t* codes;
    const float* scales;
    const int32_t* sums;
    int64_t stride;        // between tokens
    int64_t group_stride;  // between tokens, of scales and sums
};

// Rows of kTokens tokens by two base registers and one stride: an address is base, base + stride or base + 2 * stride.
template <class T, int kTokens>
struct TokenRows {
    T* low;
    T* high;
    int64_t stride;
    T* at(int t) const { return t < 3 ? low + t * stride : high + (t - 3) * stride; }
};
template <int kTokens, class T>
inline TokenRows<T, kTokens> tokens_of(T* first, int64_t stride) {
    T* high = kTokens > 3 ? first + 3 * stride : first;
    __asm__("" : "+r"(high));  // the compiler shall not derive six pointers from one
    return {first, high, stride};
}

// Unpacked groups of kTiles tiles: units of all tiles in turn, and (n_groups, kTiles, 16) scales.
struct Chunk {
    const uint8_t* weights;
    const float* scales;
    int n_groups;
    int n_units;       // of a group
    int n_last_units;  // of the last group
    int units_of(int g) const { return g + 1 < n_groups ? n_units : n_last_units; }
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

// All tokens times one chunk; y is that of the first token, kTiles * 16 rows that are all there.
template <class Kernel, int kTiles>
inline void multiply_chunk(const Chunk& chunk, Rows rows, int n_tokens, float* y, int64_t y_stride, bool accumulate) {
    const auto run = [&]<int kTokens>() {
        Kernel::template block<kTiles, kTokens>(chunk, rows, y, y_stride, accumulate);
        n_tokens -= kTokens, y += kTokens * y_stride;
        rows.codes += kTokens * rows.stride, rows.scales += kTokens * rows.group_stride, rows.sums += kTokens * rows.group_stride;
    };
    while (n_tokens >= Kernel::kTokens) run.template operator()<Kernel::kTokens>();
    if (Kernel::kTokens > 4 && n_tokens >= 4) run.template operator()<4>();
    if (n_tokens >= 2) run.template operator()<2>();
    if (n_tokens >= 1) run.template operator()<1>();
}

// The same where the last tile ends early: by way of a buffer, a few tokens at a time.
template <class Kernel, int kTiles>
inline void multiply_last_chunk(const Chunk& chunk, Rows rows, int n_tokens, int n_rows, float* y, int64_t y_stride,
                                bool accumulate) {
    constexpr int kTokens = 8, kRows = kTiles * kTileRows;
    alignas(64) float buffer[kTokens * kRows] = {};
    for (int begin = 0; begin < n_tokens; begin += kTokens) {
        const int n = n_tokens - begin < kTokens ? n_tokens - begin : kTokens;
        for (int t = 0; t < n && accumulate; ++t) store_outputs(y + (begin + t) * y_stride, n_rows, buffer + t * kRows);
        multiply_chunk<Kernel, kTiles>(chunk, rows, n, buffer, kRows, accumulate);
        for (int t = 0; t < n; ++t) store_outputs(buffer + t * kRows, n_rows, y + (begin + t) * y_stride);
        rows.codes += n * rows.stride, rows.scales += n * rows.group_stride, rows.sums += n * rows.group_stride;
    }
}

// kTiles tiles with all tokens.
template <class Kernel, class Codes, int kTiles>
inline void multiply_tiles(const Panel& w, const Codes& codes, const Activations& a, int a_column, int n_tokens, int tile, float* y,
                           int64_t y_stride, bool accumulate) {
    constexpr int kRows = kTiles * kTileRows;
    alignas(64) uint8_t weights[kChunkUnits * kTiles * kUnpackedBytes];
    alignas(64) float scales[kChunkUnits * kRows];
    const int n_groups = panel_groups(w), n_units = w.group / kUnitColumns, most_groups = kChunkUnits / n_units;
    const int n_chunks = (n_groups + most_groups - 1) / most_groups, chunk_groups = (n_groups + n_chunks - 1) / n_chunks;
    const int n_rows = (kTiles - 1) * kTileRows + valid_rows(w, tile + kTiles - 1);
    for (int first = 0; first < n_groups; first += chunk_groups) {
        Chunk chunk{weights, scales, n_groups - first < chunk_groups ? n_groups - first : chunk_groups, n_units, n_units};
        uint8_t* out = weights;
        for (int g = 0; g < chunk.n_groups; ++g) {
            const int column = (first + g) * w.group;
            if (w.columns - column < w.group) chunk.n_last_units = (w.columns - column) / kUnitColumns;
            for (int i = 0; i < kTiles; ++i) {
                Kernel::template unpack<Codes>(codes, unit_at<Codes>(w, tile + i, column), chunk.units_of(g),
                                               out + i * kUnpackedBytes, kTiles * kUnpackedBytes);
                Kernel::widen(w.scales + (static_cast<int64_t>(tile + i) * n_groups + first + g) * kTileRows,
                              scales + (g * kTiles + i) * kTileRows);
            }
            out += n_units * kTiles * kUnpackedBytes;
        }
        const Rows rows = rows_at(a, 0, a_column + first * w.group);
        if (n_rows == kRows) {
            multiply_chunk<Kernel, kTiles>(chunk, rows, n_tokens, y, y_stride, accumulate || first > 0);
        } else {
            multiply_last_chunk<Kernel, kTiles>(chunk, rows, n_tokens, n_rows, y, y_stride, accumulate || first > 0);
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
    const auto tiles = [&]<int kTiles>() {
        multiply_tiles<Kernel, Codes, kTiles>(w, codes, a, a_column, n_tokens, tile, y + tile * kTileRows, y_stride, accumulate);
        tile += kTiles;
    };
    while (tile + Kernel::kTiles <= tile_end) tiles.template operator()<Kernel::kTiles>();
    while (tile < tile_end) tiles.template operator()<1>();
}

// block() group by group, for kernels whose registers do not hold the sums of a whole chunk:
// Kernel::group<tiles, tokens>(weights, n_units, scales, rows, y, y_stride) adds one group to y.
template <class Kernel, int kTiles, int kTokens>
inline void block_by_groups(const Chunk& chunk, Rows rows, float* y, int64_t y_stride, bool accumulate) {
    for (int t = 0; t < kTokens && !accumulate; ++t) {
        for (int i = 0; i < kTiles * kTileRows; ++i) y[t * y_stride + i] = 0.0f;
    }
    const uint8_t* weights = chunk.weights;
    const auto groups = [&](int begin, int end, int n_units) {
        for (int g = begin; g < end; ++g) {
            Kernel::template group<kTiles, kTokens>(weights, n_units, chunk.scales + g * kTiles * kTileRows, rows, y, y_stride);
            weights += n_units * kTiles * kUnpackedBytes;
            rows.codes += n_units * kUnitColumns, ++rows.scales, ++rows.sums;
        }
    };
    if (chunk.n_units == 4) {
        groups(0, chunk.n_groups - 1, 4);  // the common size, unrolled
    } else {
        groups(0, chunk.n_groups - 1, chunk.n_units);
    }
    groups(chunk.n_groups - 1, chunk.n_groups, chunk.n_last_units);
}

}  // namespace
}  // namespace edge
