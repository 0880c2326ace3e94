// edge_softplus: ln(1 + e^x) of every kernel, the same bits on every machine: max(x, 0) + ln(1 + e^-|x|), where
// ln(1 + e) = 2 atanh(s) with s = e / (2 + e) <= 1/3, by eleven terms of the series in binary64: the error is below 1e-11.
#pragma once
#include "kernels/exp.h"

namespace edge {

inline constexpr int kAtanhTerms = 11;

static inline float edge_softplus(float x) {
    if (x > 20.0f) return x;
    const double e = edge_exp(x < 0 ? x : -x);
    const double s = e / (2.0 + e), square = s * s;
    double series = 1.0 / (2 * kAtanhTerms - 1);
    for (int k = 2 * kAtanhTerms - 3; k > 0; k -= 2) series = series * square + 1.0 / k;
    return (x > 0 ? x : 0.0f) + static_cast<float>(2.0 * (s * series));
}

}  // namespace edge
