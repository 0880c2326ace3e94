// The parts of matmul_driver.h for plain NEON: byte products by smull and smlal in 16 bits (2 * 127 * 127 fits), summed in
// pairs by sadalp. A sum register holds two rows as two halves each, joined at the end of a group.
#pragma once
#include "kernels/arm/codes_neon.h"
#include "kernels/matmul_driver.h"

namespace edge {
namespace {

struct EightColumns {  // four activations twice, for the columns 0..3 and 4..7
    int8x8_t low, high;
    explicit EightColumns(const int8_t* a) {
        const int32x2_t words = vreinterpret_s32_s8(vld1_s8(a));
        low = vreinterpret_s8_s32(vdup_lane_s32(words, 0));
        high = vreinterpret_s8_s32(vdup_lane_s32(words, 1));
    }
};

struct FourRows {  // rows 0, 1 and rows 2, 3; each row as two partial sums
    int32x4_t first = vdupq_n_s32(0), second = vdupq_n_s32(0);
    void add(int8x16_t low, int8x16_t high, const EightColumns& a) {
        first = vpadalq_s16(first, vmlal_s8(vmull_s8(vget_low_s8(low), a.low), vget_low_s8(high), a.high));
        second = vpadalq_s16(second, vmlal_s8(vmull_s8(vget_high_s8(low), a.low), vget_high_s8(high), a.high));
    }
    int32x4_t total() const { return vpaddq_s32(first, second); }
};

struct Neon {
    static constexpr int kTiles = 1, kTokens = 4;
    using Sum = RowSums;
    static void widen(const uint16_t* halves, float* out) { widen_row(halves, out); }

    template <class Codes>
    [[gnu::always_inline]] static inline void step(const Codes& codes, const uint8_t* unit, int n_units, const uint16_t* scales,
                                                   const Rows& row, Sum& sum) {
        FourRows rows[4];
        for (int u = 0; u < n_units; ++u, unit += Codes::kUnitBytes) {
            __builtin_prefetch(unit + kPrefetchBytes);
            const EightColumns a(row.codes + 8 * u);
            for (int part = 0; part < 4; ++part) {
                const Columns w = codes.read(unit, part);
                rows[part].add(w.low, w.high, a);
            }
        }
        for (int part = 0; part < 4; ++part) sum.add(part, rows[part].total(), scales, *row.scales);
    }

    template <class Codes>
    static void unpack(const Codes& codes, const uint8_t* unit, int n_units, uint8_t* out, int unit_stride) {
        unpack_columns(codes, unit, n_units, out, unit_stride);
    }

    template <int kBlockTiles, int kBlockTokens>
    static void block(const Chunk& chunk, const Rows& rows, float* y, int64_t y_stride, bool accumulate) {
        block_by_groups<Neon, kBlockTiles, kBlockTokens>(chunk, rows, y, y_stride, accumulate);
    }

    // Two parts at a time: 4 tokens then need 16 registers for sums.
    template <int kBlockTiles, int kBlockTokens>
    static void group(const uint8_t* weights, int n_units, const float* scales, const Rows& rows, float* y, int64_t y_stride) {
        static_assert(kBlockTiles == 1);
        for (int part = 0; part < 4; part += 2) {
            FourRows sums[kBlockTokens][2];
            for (int u = 0; u < n_units; ++u) {
                const uint8_t* unit = weights + u * kUnpackedBytes + 16 * part;
                const int8x16_t low[2] = {load_bytes(unit), load_bytes(unit + 16)};
                const int8x16_t high[2] = {load_bytes(unit + 64), load_bytes(unit + 80)};
                for (int t = 0; t < kBlockTokens; ++t) {
                    const EightColumns a(rows.codes + t * rows.stride + 8 * u);
                    for (int i = 0; i < 2; ++i) sums[t][i].add(low[i], high[i], a);
                }
            }
            for (int t = 0; t < kBlockTokens; ++t) {
                for (int i = 0; i < 2; ++i) {
                    const int row = 4 * (part + i);
                    add_scaled(sums[t][i].total(), scales + row, rows.scales[t * rows.group_stride], y + t * y_stride + row);
                }
            }
        }
    }
};

}  // namespace
}  // namespace edge
