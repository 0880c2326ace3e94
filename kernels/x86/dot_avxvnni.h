// Unsigned weights times signed activations by 256-bit vpdpbusd.
#pragma once
#include <immintrin.h>

namespace edge {
namespace {

struct ByteDot {
    static constexpr int kFlip = 128;
    static constexpr int kAhead = 8192;  // bytes of codes between a prefetch and its use, as measured (docs/SPEED.md)
    static __m256i prepare(__m256i w) { return w; }
    static __m256i add(__m256i sums, __m256i w, __m256i a) { return _mm256_dpbusd_avx_epi32(sums, w, a); }
    static __m256i add(__m256i sums, __m256i w, __m256i a, __m256i w2, __m256i a2) { return add(add(sums, w, a), w2, a2); }
    static __m256i once(__m256i a) { return a; }
    static void add_once(__m256i (&sums)[2], __m256i w, __m256i a, __m256i w2, __m256i a2) {
        sums[0] = add(sums[0], w, a), sums[1] = add(sums[1], w2, a2);
    }
    static __m256i prepare_unsigned(__m256i p) { return p; }
    static __m256i prepare_signed(__m256i v) { return v; }
};
using NarrowDot = ByteDot;

}  // namespace
}  // namespace edge
