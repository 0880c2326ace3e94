// edge_exp and edge_softcap on 16 lanes, bit for bit the functions in kernels/exp.h. Include after a lanes_*.h.
#pragma once
#include "kernels/exp.h"

namespace edge {
namespace {

inline Lanes exponential(Lanes x) {
    const Lanes capped = min(x, splat(kExpHigh));
    const Lanes shifted = fma(capped, splat(kLog2e), splat(kRoundMagic));
    const Lanes n = sub(shifted, splat(kRoundMagic));
    Lanes r = fma(n, splat(-kLn2High), capped);
    r = fma(n, splat(-kLn2Low), r);
    Lanes q = splat(kExpPolynomial[0]);
    for (int i = 1; i < 5; ++i) q = fma(q, r, splat(kExpPolynomial[i]));
    const Lanes y = add(fma(q, mul(r, r), r), splat(1.0f));
    return zero_below(x, splat(kExpLow), mul(y, power_of_two(shifted)));
}

inline Lanes softcapped(Lanes x, float cap) {
    const Lanes e = exponential(mul(x, splat(2.0f / cap)));
    return mul(splat(cap), sub(splat(1.0f), div(splat(2.0f), add(splat(1.0f), e))));
}

}  // namespace
}  // namespace edge
