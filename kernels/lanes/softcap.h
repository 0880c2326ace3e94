// softcap (ops.h) on 16 lanes. Include after a lanes_*.h.
#pragma once
#include "kernels/lanes/exp.h"
#include "kernels/ops.h"

namespace edge {
namespace {

inline void softcap_row(float* x, float cap, int64_t n) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) store(x + i, softcapped(load(x + i), cap));
    for (; i < n; ++i) x[i] = edge_softcap(x[i], cap);
}

}  // namespace
}  // namespace edge
