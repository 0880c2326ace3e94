// edge_exp on 16 lanes, bit for bit the function in kernels/exp.h. Include after a lanes_*.h.
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

}  // namespace
}  // namespace edge
