// Sixteen floats (or integers) as four NEON registers. Included by files that are compiled for one set only.
#pragma once
#include <arm_neon.h>

#include <cstdint>

namespace edge {
namespace {

constexpr int kValueChunks = 1;  // attention: 16-column chunks of V summed at once

struct Lanes {
    float32x4_t v[4];
};
struct Ints {
    int32x4_t v[4];
};

inline Lanes splat(float x) {
    const float32x4_t v = vdupq_n_f32(x);
    return {{v, v, v, v}};
}
inline Lanes zero() { return splat(0.0f); }
inline Lanes load(const float* p) { return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}}; }
inline Lanes load8(const float* p) { return {{vld1q_f32(p), vld1q_f32(p + 4), vdupq_n_f32(0), vdupq_n_f32(0)}}; }
inline void store(float* p, Lanes a) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
inline void store8(float* p, Lanes a) {
    for (int i = 0; i < 2; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}

inline Lanes from_bytes(int8x16_t bytes) {
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
             vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
inline Lanes load_i8(const int8_t* p) { return from_bytes(vld1q_s8(p)); }
inline Lanes load8_i8(const int8_t* p) { return from_bytes(vcombine_s8(vld1_s8(p), vdup_n_s8(0))); }
inline float32x4_t from_halves(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
inline Lanes load_f16(const uint16_t* p) {
    return {{from_halves(p), from_halves(p + 4), from_halves(p + 8), from_halves(p + 12)}};
}
inline Lanes load8_f16(const uint16_t* p) { return {{from_halves(p), from_halves(p + 4), vdupq_n_f32(0), vdupq_n_f32(0)}}; }
inline float from_f16(uint16_t half) { return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0); }

#define EDGE_EACH(expression)                   \
    Lanes out;                                  \
    for (int i = 0; i < 4; ++i) out.v[i] = expression; \
    return out
inline Lanes fma(Lanes a, Lanes b, Lanes c) { EDGE_EACH(vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
inline Lanes add(Lanes a, Lanes b) { EDGE_EACH(vaddq_f32(a.v[i], b.v[i])); }
inline Lanes sub(Lanes a, Lanes b) { EDGE_EACH(vsubq_f32(a.v[i], b.v[i])); }
inline Lanes mul(Lanes a, Lanes b) { EDGE_EACH(vmulq_f32(a.v[i], b.v[i])); }
inline Lanes div(Lanes a, Lanes b) { EDGE_EACH(vdivq_f32(a.v[i], b.v[i])); }
inline Lanes max(Lanes a, Lanes b) { EDGE_EACH(vmaxq_f32(a.v[i], b.v[i])); }
inline Lanes min(Lanes a, Lanes b) { EDGE_EACH(vminq_f32(a.v[i], b.v[i])); }
inline Lanes abs(Lanes a) { EDGE_EACH(vabsq_f32(a.v[i])); }

inline float32x4_t power_of_two(float32x4_t shifted) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vreinterpretq_s32_f32(shifted), vdupq_n_s32(127)), 23));
}
// 2^n for the integer n in the low bits of `shifted` (exp.h).
inline Lanes power_of_two(Lanes shifted) { EDGE_EACH(power_of_two(shifted.v[i])); }
inline float32x4_t zero_below(float32x4_t x, float32x4_t limit, float32x4_t y) {
    return vreinterpretq_f32_u32(vandq_u32(vcgeq_f32(x, limit), vreinterpretq_u32_f32(y)));
}
// y where x >= limit, else 0.
inline Lanes zero_below(Lanes x, Lanes limit, Lanes y) { EDGE_EACH(zero_below(x.v[i], limit.v[i], y.v[i])); }
#undef EDGE_EACH

inline float sum(Lanes a) {
    const float32x4_t four = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(vpadd_f32(two, two), 0);
}
inline float largest(Lanes a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[2]), vmaxq_f32(a.v[1], a.v[3]))); }

inline Lanes from_ints(const int32_t* p) {
    return {{vcvtq_f32_s32(vld1q_s32(p)), vcvtq_f32_s32(vld1q_s32(p + 4)), vcvtq_f32_s32(vld1q_s32(p + 8)),
             vcvtq_f32_s32(vld1q_s32(p + 12))}};
}
inline Ints no_ints() { return {{vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)}}; }
inline Ints round_half_even(Lanes a) {
    return {{vcvtnq_s32_f32(a.v[0]), vcvtnq_s32_f32(a.v[1]), vcvtnq_s32_f32(a.v[2]), vcvtnq_s32_f32(a.v[3])}};
}
inline Ints add(Ints a, Ints b) {
    return {{vaddq_s32(a.v[0], b.v[0]), vaddq_s32(a.v[1], b.v[1]), vaddq_s32(a.v[2], b.v[2]), vaddq_s32(a.v[3], b.v[3])}};
}
inline int32_t sum(Ints a) { return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3]))); }
inline int8x8_t pack_i8(int32x4_t low, int32x4_t high) {
    return vqmovn_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high)));
}
inline void store8_i8(int8_t* p, Ints a) { vst1_s8(p, pack_i8(a.v[0], a.v[1])); }
inline void store_i8(int8_t* p, Ints a) {
    store8_i8(p, a);
    vst1_s8(p + 8, pack_i8(a.v[2], a.v[3]));
}
inline uint8x8_t pack_u8(int32x4_t low, int32x4_t high) {
    return vqmovun_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high)));
}
// Values from 0 to 255.
inline void store_u8(uint8_t* p, Ints a) {
    vst1_u8(p, pack_u8(a.v[0], a.v[1]));
    vst1_u8(p + 8, pack_u8(a.v[2], a.v[3]));
}

}  // namespace
}  // namespace edge
