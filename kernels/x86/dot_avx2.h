// Signed byte products without VNNI: |w| times a with the sign of w, as pairs in 16 bits (2 * 127 * 127 fits), then in 32.
#pragma once
#include <immintrin.h>

namespace edge {
namespace {

struct IntDot {
    static constexpr int kFlip = 0, kTokens = 4;
    struct Weight {
        __m256i value, magnitude;
    };
    static Weight prepare(__m256i w) { return {w, _mm256_abs_epi8(w)}; }
    static __m256i add(__m256i sums, const Weight& w, __m256i a) {
        const __m256i pairs = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(a, w.value));
        return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }

    // For one token: |a| times w with the sign of a, so that nothing is computed of weights that are used once.
    struct Once {
        __m256i value, magnitude;
    };
    static Once once(__m256i a) { return {a, _mm256_abs_epi8(a)}; }
    static __m256i add_once(__m256i sums, __m256i w, const Once& a) {
        const __m256i pairs = _mm256_maddubs_epi16(a.magnitude, _mm256_sign_epi8(w, a.value));
        return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }

    // Up to 255 times a signed byte does not fit the sums of pairs above: products of 16 bits, even and odd bytes apart.
    struct Unsigned {
        __m256i even, odd;
    };
    struct Signed {
        __m256i even, odd;
    };
    static Unsigned prepare_unsigned(__m256i p) {
        return {_mm256_and_si256(p, _mm256_set1_epi16(255)), _mm256_srli_epi16(p, 8)};
    }
    static Signed prepare_signed(__m256i v) { return {_mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), _mm256_srai_epi16(v, 8)}; }
    static __m256i add(__m256i sums, const Unsigned& p, const Signed& v) {
        const __m256i even = _mm256_madd_epi16(p.even, v.even), odd = _mm256_madd_epi16(p.odd, v.odd);
        return _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
    }
};

}  // namespace
}  // namespace edge
