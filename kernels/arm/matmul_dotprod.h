// The parts of matmul_driver.h for sdot: one register is 4 rows x 4 columns, times 4 activations out of a lane.
#pragma once
#include "kernels/arm/codes_neon.h"
#include "kernels/matmul_driver.h"

namespace edge {
namespace {

struct Dotprod {
    static constexpr int kTiles = 1, kTokens = 4;
    using Sum = RowSums;
    static void widen(const uint16_t* halves, float* out) { widen_row(halves, out); }

    template <class Codes>
    [[gnu::always_inline]] static inline void step(const Codes& codes, const uint8_t* unit, int n_units, const uint16_t* scales,
                                                   const Rows& row, Sum& sum) {
        int32x4_t low[4], high[4];
        for (int part = 0; part < 4; ++part) low[part] = high[part] = vdupq_n_s32(0);
        for (int u = 0; u < n_units; ++u, unit += Codes::kUnitBytes) {
            __builtin_prefetch(unit + kPrefetchBytes);
            const int8x8_t a = vld1_s8(row.codes + 8 * u);
            for (int part = 0; part < 4; ++part) {
                const Columns w = codes.read(unit, part);
                low[part] = vdotq_lane_s32(low[part], w.low, a, 0);
                high[part] = vdotq_lane_s32(high[part], w.high, a, 1);
            }
        }
        for (int part = 0; part < 4; ++part) sum.add(part, vaddq_s32(low[part], high[part]), scales, *row.scales);
    }

    template <class Codes>
    static void unpack(const Codes& codes, const uint8_t* unit, int n_units, uint8_t* out, int unit_stride) {
        unpack_columns(codes, unit, n_units, out, unit_stride);
    }

    template <int kBlockTiles, int kBlockTokens>
    static void block(const Chunk& chunk, const Rows& rows, float* y, int64_t y_stride, bool accumulate) {
        block_by_groups<Dotprod, kBlockTiles, kBlockTokens>(chunk, rows, y, y_stride, accumulate);
    }

    template <int kBlockTiles, int kBlockTokens>
    static void group(const uint8_t* weights, int n_units, const float* scales, const Rows& rows, float* y, int64_t y_stride) {
        static_assert(kBlockTiles == 1);
        int32x4_t sums[kBlockTokens][4];
        for (int t = 0; t < kBlockTokens; ++t) {
            for (int part = 0; part < 4; ++part) sums[t][part] = vdupq_n_s32(0);
        }
        for (int u = 0; u < n_units; ++u, weights += kUnpackedBytes) {
            int8x8_t a[kBlockTokens];
            for (int t = 0; t < kBlockTokens; ++t) a[t] = vld1_s8(rows.codes + t * rows.stride + 8 * u);
            for (int part = 0; part < 4; ++part) {
                const int8x16_t low = load_bytes(weights + 16 * part), high = load_bytes(weights + 64 + 16 * part);
                for (int t = 0; t < kBlockTokens; ++t) {
                    sums[t][part] = vdotq_lane_s32(vdotq_lane_s32(sums[t][part], low, a[t], 0), high, a[t], 1);
                }
            }
        }
        for (int t = 0; t < kBlockTokens; ++t) {
            for (int part = 0; part < 4; ++part) {
                add_scaled(sums[t][part], scales + 4 * part, rows.scales[t * rows.group_stride], y + t * y_stride + 4 * part);
            }
        }
    }
};

}  // namespace
}  // namespace edge
