// Byte products without VNNI: pairs in 16 bits, then in 32.
#pragma once
#include <immintrin.h>

namespace edge {
namespace {

inline __m256i add_pairs(__m256i sums, __m256i pairs) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// Weights from -32 to 31, moved to 0 to 63: four products fit 16 bits (4 * 63 * 127), so that two halves of a unit are added
// there first.
struct NarrowDot {
    static constexpr int kFlip = 32;
    static constexpr int kAhead = 2048;
    static __m256i prepare(__m256i w) { return w; }
    static __m256i add(__m256i sums, __m256i w, __m256i a, __m256i w2, __m256i a2) {
        return add_pairs(sums, _mm256_add_epi16(_mm256_maddubs_epi16(w, a), _mm256_maddubs_epi16(w2, a2)));
    }
    static __m256i once(__m256i a) { return a; }
    static void add_once(__m256i (&sums)[2], __m256i w, __m256i a, __m256i w2, __m256i a2) { sums[0] = add(sums[0], w, a, w2, a2); }
};

// Any signed bytes: |w| times a with the sign of w (2 * 127 * 127 fits).
struct ByteDot {
    static constexpr int kFlip = 0;
    struct Weight {
        __m256i value, magnitude;
    };
    static Weight prepare(__m256i w) { return {w, _mm256_abs_epi8(w)}; }
    static __m256i add(__m256i sums, const Weight& w, __m256i a) {
        return add_pairs(sums, _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(a, w.value)));
    }
    static __m256i add(__m256i sums, const Weight& w, __m256i a, const Weight& w2, __m256i a2) {
        return add(add(sums, w, a), w2, a2);
    }

    // For one token: |a| times w with the sign of a, so that nothing is computed of weights that are used once.
    static Weight once(__m256i a) { return prepare(a); }
    static void add_once(__m256i (&sums)[2], __m256i w, const Weight& a, __m256i w2, const Weight& a2) {
        sums[0] = add(sums[0], a, w), sums[1] = add(sums[1], a2, w2);
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
