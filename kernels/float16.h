// IEEE-754 binary16 in integer arithmetic: what the hardware conversions must equal.
#pragma once
#include <cstdint>

namespace edge {

static inline float float_from_bits(uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

static inline float f16_to_f32(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 31u;
    const uint32_t fraction = half & 1023u;
    if (exponent == 0) {  // zero and subnormals: fraction * 2^-24, exact
        const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    if (exponent == 31) return float_from_bits(sign | 0x7f800000u | fraction << 13);
    return float_from_bits(sign | (exponent + 112u) << 23 | fraction << 13);
}

// Rounds half to even; values from 65520 on become infinite; a NaN stays one (quiet).
static inline uint16_t f32_to_f16(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {  // below 2^-14: the addition rounds to a multiple of 2^-24
        const float sum = float_from_bits(magnitude) + 0.5f;
        uint32_t sum_bits;
        __builtin_memcpy(&sum_bits, &sum, 4);
        return static_cast<uint16_t>(sign | (sum_bits - 0x3f000000u));
    }
    const uint32_t odd = magnitude >> 13 & 1u;
    return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

}  // namespace edge
