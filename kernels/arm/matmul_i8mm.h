// The parts of matmul_driver.h for smmla: 2 rows x 8 columns times 8 columns x 2 tokens. One token alone goes by sdot, since
// it would waste half of each smmla and is bound by memory anyway.
#pragma once
#include "kernels/arm/matmul_dotprod.h"

namespace edge {
namespace {

struct I8mm {
    static constexpr int kTiles = 1, kTokens = 4;
    using Sum = RowSums;
    static void widen(const uint16_t* halves, float* out) { widen_row(halves, out); }

    template <class Codes>
    [[gnu::always_inline]] static inline void step(const Codes& codes, const uint8_t* unit, int n_units, const uint16_t* scales,
                                                   const Rows& row, Sum& sum) {
        Dotprod::step<Codes>(codes, unit, n_units, scales, row, sum);
    }

    // A unit as bytes: 8 columns of row 0, of row 1, ...
    template <class Codes>
    static void unpack(const Codes& codes, const uint8_t* unit, int n_units, uint8_t* out, int unit_stride) {
        for (int u = 0; u < n_units; ++u, unit += Codes::kUnitBytes, out += unit_stride) {
            for (int part = 0; part < 4; ++part) {
                const Columns w = codes.read(unit, part);
                const int32x4_t low = vreinterpretq_s32_s8(w.low), high = vreinterpretq_s32_s8(w.high);
                vst1q_u8(out + 32 * part, vreinterpretq_u8_s32(vzip1q_s32(low, high)));
                vst1q_u8(out + 32 * part + 16, vreinterpretq_u8_s32(vzip2q_s32(low, high)));
            }
        }
    }

    template <int kBlockTiles, int kBlockTokens>
    static void block(const Chunk& chunk, const Rows& rows, float* y, int64_t y_stride, bool accumulate) {
        block_by_groups<I8mm, kBlockTiles, kBlockTokens>(chunk, rows, y, y_stride, accumulate);
    }

    template <int kBlockTiles, int kBlockTokens>
    static void group(const uint8_t* weights, int n_units, const float* scales, const Rows& rows, float* y, int64_t y_stride) {
        static_assert(kBlockTiles == 1);
        constexpr int kPairs = (kBlockTokens + 1) / 2;  // a token alone is paired with itself
        int32x4_t sums[kPairs][8];                 // [row pair]: (row 0, token 0), (row 0, token 1), (row 1, token 0), ...
        for (int p = 0; p < kPairs; ++p) {
            for (int i = 0; i < 8; ++i) sums[p][i] = vdupq_n_s32(0);
        }
        for (int u = 0; u < n_units; ++u, weights += kUnpackedBytes) {
            int8x16_t a[kPairs];
            for (int p = 0; p < kPairs; ++p) {
                const int8_t* first = rows.codes + 2 * p * rows.stride + 8 * u;
                a[p] = vcombine_s8(vld1_s8(first), vld1_s8(kBlockTokens == 1 ? first : first + rows.stride));
            }
            for (int i = 0; i < 8; ++i) {
                const int8x16_t w = load_bytes(weights + 16 * i);
                for (int p = 0; p < kPairs; ++p) sums[p][i] = vmmlaq_s32(sums[p][i], w, a[p]);
            }
        }
        for (int t = 0; t < kBlockTokens; ++t) {
            for (int part = 0; part < 4; ++part) {
                const int32x4_t upper = sums[t / 2][2 * part], lower = sums[t / 2][2 * part + 1];
                const int32x4_t total = t % 2 == 0 ? vuzp1q_s32(upper, lower) : vuzp2q_s32(upper, lower);
                add_scaled(total, scales + 4 * part, rows.scales[t * rows.group_stride], y + t * y_stride + 4 * part);
            }
        }
    }
};

}  // namespace
}  // namespace edge
