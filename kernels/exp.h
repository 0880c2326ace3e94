// edge_exp: the exponential function of every kernel, the same bits on every machine.
//
// x = n ln 2 + r with n = round(x / ln 2), |r| <= ln 2 / 2; e^r = 1 + r + r^2 q(r), where q has degree 4 and was fitted for
// the smallest relative error (3.1e-9, Lawson iteration). Every step is one binary32 operation or one fma, in this order.
// Below kExpLow the result is 0; above kExpHigh it is that of kExpHigh (2.34e38), so it is never infinite.
#pragma once
#include <cstdint>

namespace edge {

inline constexpr float kExpLow = -87.3f;
inline constexpr float kExpHigh = 88.35f;
inline constexpr float kLog2e = 0x1.715476p+0f;
inline constexpr float kLn2High = 0.693359375f;            // 9 bits: n * kLn2High is exact
inline constexpr float kLn2Low = -0.00021219444f;
inline constexpr float kRoundMagic = 12582912.0f;          // 1.5 * 2^23: adding it rounds to an integer in the low bits
inline constexpr float kExpPolynomial[5] = {0x1.6a23d0p-10f, 0x1.123a20p-7f, 0x1.5558f2p-5f, 0x1.555492p-3f, 0x1.fffffcp-2f};

static inline float edge_exp(float x) {
    if (x < kExpLow) return 0.0f;
    if (x > kExpHigh) x = kExpHigh;
    const float shifted = __builtin_fmaf(x, kLog2e, kRoundMagic);
    const float n = shifted - kRoundMagic;
    float r = __builtin_fmaf(n, -kLn2High, x);
    r = __builtin_fmaf(n, -kLn2Low, r);
    float q = kExpPolynomial[0];
    for (int i = 1; i < 5; ++i) q = __builtin_fmaf(q, r, kExpPolynomial[i]);
    const float y = __builtin_fmaf(q, r * r, r) + 1.0f;
    uint32_t bits;
    __builtin_memcpy(&bits, &shifted, 4);
    bits = (bits + 127u) << 23;  // 2^n: the low bits of `shifted` are n
    float power;
    __builtin_memcpy(&power, &bits, 4);
    return y * power;
}

// cap tanh(x / cap), within +-cap; every step is one binary32 operation.
static inline float edge_softcap(float x, float cap) {
    return cap * (1.0f - 2.0f / (1.0f + edge_exp(x * (2.0f / cap))));
}

}  // namespace edge
