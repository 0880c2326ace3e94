// dot_f16 (ops.h) on 16 lanes. Include after a lanes_*.h.
#pragma once
#include "kernels/ops.h"

namespace edge {
namespace {

inline void dot_f16_rows(const uint16_t* w, const float* x, int n_rows, int n, float* y) {
    for (int r = 0; r < n_rows; ++r, w += n) {
        Lanes products = zero();
        int i = 0;
        for (; i + 16 <= n; i += 16) products = fma(load_f16(w + i), load(x + i), products);
        if (i < n) products = fma(load8_f16(w + i), load8(x + i), products);
        y[r] = sum(products);
    }
}

}  // namespace
}  // namespace edge
