// Unsigned weights times signed activations by 256-bit vpdpbusd.
#pragma once
#include <immintrin.h>

namespace edge {
namespace {

struct IntDot {
    static constexpr int kFlip = 128, kTokens = 4;
    static __m256i prepare(__m256i w) { return w; }
    static __m256i add(__m256i sums, __m256i w, __m256i a) { return _mm256_dpbusd_avx_epi32(sums, w, a); }
    static __m256i once(__m256i a) { return a; }
    static __m256i add_once(__m256i sums, __m256i w, __m256i a) { return add(sums, w, a); }
    static __m256i prepare_unsigned(__m256i p) { return p; }
    static __m256i prepare_signed(__m256i v) { return v; }
};

}  // namespace
}  // namespace edge
