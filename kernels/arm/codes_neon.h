// How packed codes become signed bytes in NEON registers: four rows x four columns each.
#pragma once
#include <arm_neon.h>

#include "kernels/ops.h"

namespace edge {
namespace {

struct Columns {  // rows 4 * part .. 4 * part + 3: columns 0..3 and 4..7
    int8x16_t low, high;
};

struct CodesQ4 {
    static constexpr int kUnitBytes = 64;
    int8x16_t table;
    explicit CodesQ4(const Panel& w) : table(vld1q_s8(w.codebook)) {}
    Columns read(const uint8_t* unit, int part) const {
        const uint8x16_t packed = vld1q_u8(unit + 16 * part);
        return {vqtbl1q_s8(table, vandq_u8(packed, vdupq_n_u8(15))), vqtbl1q_s8(table, vshrq_n_u8(packed, 4))};
    }
};

struct CodesQ8 {
    static constexpr int kUnitBytes = 128;
    explicit CodesQ8(const Panel&) {}
    Columns read(const uint8_t* unit, int part) const {
        return {vreinterpretq_s8_u8(vld1q_u8(unit + 16 * part)), vreinterpretq_s8_u8(vld1q_u8(unit + 64 + 16 * part))};
    }
};

inline float32x4_t widen_halves(const uint16_t* halves) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves))); }

// Sums of 16 rows, kept in registers through the groups of one tile.
struct RowSums {
    float32x4_t v[4];
    explicit RowSums(const float* acc) : v{vld1q_f32(acc), vld1q_f32(acc + 4), vld1q_f32(acc + 8), vld1q_f32(acc + 12)} {}
    void store(float* acc) const {
        for (int i = 0; i < 4; ++i) vst1q_f32(acc + 4 * i, v[i]);
    }
    // Rows 4 * part ..: += total * (scale * a_scale)
    void add(int part, int32x4_t total, const uint16_t* scales, float a_scale) {
        const float32x4_t scale = vmulq_n_f32(widen_halves(scales + 4 * part), a_scale);
        v[part] = vfmaq_f32(v[part], vcvtq_f32_s32(total), scale);
    }
};

inline void widen_row(const uint16_t* halves, float* out) {
    for (int i = 0; i < 4; ++i) vst1q_f32(out + 4 * i, widen_halves(halves + 4 * i));
}

// acc[0..3] += total * (scales[0..3] * a_scale)
inline void add_scaled(int32x4_t total, const float* scales, float a_scale, float* acc) {
    const float32x4_t scale = vmulq_n_f32(vld1q_f32(scales), a_scale);
    vst1q_f32(acc, vfmaq_f32(vld1q_f32(acc), vcvtq_f32_s32(total), scale));
}

// A unit as bytes: columns 0..3 of 16 rows, then columns 4..7.
template <class Codes>
inline void unpack_columns(const Codes& codes, const uint8_t* unit, int n_units, uint8_t* out, int unit_stride) {
    for (int u = 0; u < n_units; ++u, unit += Codes::kUnitBytes, out += unit_stride) {
        for (int part = 0; part < 4; ++part) {
            const Columns w = codes.read(unit, part);
            vst1q_u8(out + 16 * part, vreinterpretq_u8_s8(w.low));
            vst1q_u8(out + 64 + 16 * part, vreinterpretq_u8_s8(w.high));
        }
    }
}

inline int8x16_t load_bytes(const uint8_t* p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }

}  // namespace
}  // namespace edge
