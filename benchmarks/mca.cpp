// The inner loops that benchmarks/mca.py analyses, marked for llvm-mca: one group of 32 columns of our 4-bit kernels, and the
// same products from rows of blocks (16 bytes of codes behind a float16 scale), as a straightforward kernel has them.
#if defined(EDGE_MCA_I8MM)
#include "kernels/arm/matmul_i8mm.h"
#else
#include "kernels/arm/matmul_dotprod.h"
#endif

#define EDGE_MCA_BEGIN(name) __asm__ volatile("# LLVM-MCA-BEGIN " name ::: "memory")
#define EDGE_MCA_END() __asm__ volatile("# LLVM-MCA-END" ::: "memory")

namespace edge {

#if defined(EDGE_MCA_I8MM)
using Kernel = I8mm;
#else
using Kernel = Dotprod;
#endif

void matvec(const Panel& w, const Activations& a, float* acc) {
    const CodesQ4 codes(w);
    const uint8_t* unit = w.codes;
    const uint16_t* scales = w.scales;
    Rows row = rows_at(a, 0, 0);
    RowSums sum(acc);
    for (int g = 0; g < panel_groups(w); ++g) {
        EDGE_MCA_BEGIN("matvec");
        Kernel::step<CodesQ4>(codes, unit, 4, scales, row, sum);
        unit += 4 * CodesQ4::kUnitBytes, scales += kTileRows, row.codes += 32, ++row.scales, ++row.sums;
        EDGE_MCA_END();
    }
    sum.store(acc);
}

void matmul(const uint8_t* weights, const float* scales, const Activations& a, int n_groups, float* y, int64_t y_stride) {
    Rows rows = rows_at(a, 0, 0);
    for (int g = 0; g < n_groups; ++g) {
        EDGE_MCA_BEGIN("matmul");
        Kernel::group<1, 4>(weights, 4, scales, rows, y, y_stride);
        weights += 4 * kUnpackedBytes, scales += kTileRows, rows.codes += 32, ++rows.scales, ++rows.sums;
        EDGE_MCA_END();
    }
}

struct Block {  // 32 columns of one row
    uint16_t scale;
    uint8_t codes[16];
};

// kTokens: each block of a row is unpacked once for all tokens.
template <int kTokens>
[[gnu::always_inline]] inline void add_block(const Block& block, const int8_t* a, int64_t stride, const float* a_scales,
                                             int64_t group_stride, float32x4_t (&sums)[kTokens]) {
    const uint8x16_t packed = vld1q_u8(block.codes);
    const int8x16_t low = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15))), vdupq_n_s8(8));
    const int8x16_t high = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(packed, 4)), vdupq_n_s8(8));
    const float scale = vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(block.scale))), 0);
    for (int t = 0; t < kTokens; ++t) {
        const int32x4_t dot = vdotq_s32(vdotq_s32(vdupq_n_s32(0), low, vld1q_s8(a + t * stride)), high, vld1q_s8(a + t * stride + 16));
        sums[t] = vfmaq_n_f32(sums[t], vcvtq_f32_s32(dot), scale * a_scales[t * group_stride]);
    }
}

void plain_matvec(const Block* block, const int8_t* a, const float* a_scales, int n_groups, float* out) {
    float32x4_t sums[1] = {vdupq_n_f32(0)};
    for (int g = 0; g < n_groups; ++g) {
        EDGE_MCA_BEGIN("plain matvec");
        add_block<1>(*block, a, 0, a_scales, 0, sums);
        ++block, a += 32, ++a_scales;
        EDGE_MCA_END();
    }
    *out = vaddvq_f32(sums[0]);
}

void plain_matmul(const Block* block, const int8_t* a, int64_t stride, const float* a_scales, int64_t group_stride, int n_groups,
                  float* out) {
    float32x4_t sums[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (int g = 0; g < n_groups; ++g) {
        EDGE_MCA_BEGIN("plain matmul");
        add_block<4>(*block, a, stride, a_scales, group_stride, sums);
        ++block, a += 32, ++a_scales;
        EDGE_MCA_END();
    }
    for (int t = 0; t < 4; ++t) out[t] = vaddvq_f32(sums[t]);
}

}  // namespace edge
