// Sixteen floats (or integers) as two ymm registers. Included by files that are compiled for one set only.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace edge {
namespace {

constexpr int kValueChunks = 1;  // attention: 16-column chunks of V summed at once

struct Lanes {
    __m256 low, high;
};
struct Ints {
    __m256i low, high;
};

inline Lanes splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline Lanes load8(const float* p) { return {_mm256_loadu_ps(p), _mm256_setzero_ps()}; }
inline void store(float* p, Lanes a) {
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
}
inline void store8(float* p, Lanes a) { _mm256_storeu_ps(p, a.low); }

inline __m256 from_bytes(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline __m256 from_halves(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline Lanes load_i8(const int8_t* p) { return {from_bytes(p), from_bytes(p + 8)}; }
inline Lanes load8_i8(const int8_t* p) { return {from_bytes(p), _mm256_setzero_ps()}; }
inline Lanes load_f16(const uint16_t* p) { return {from_halves(p), from_halves(p + 8)}; }
inline Lanes load8_f16(const uint16_t* p) { return {from_halves(p), _mm256_setzero_ps()}; }
inline float from_f16(uint16_t half) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))); }

inline Lanes fma(Lanes a, Lanes b, Lanes c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Lanes add(Lanes a, Lanes b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline Lanes sub(Lanes a, Lanes b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline Lanes mul(Lanes a, Lanes b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline Lanes div(Lanes a, Lanes b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
inline Lanes max(Lanes a, Lanes b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline Lanes min(Lanes a, Lanes b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline Lanes abs(Lanes a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}

inline __m256 power_of_two(__m256 shifted) {
    const __m256i biased = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
// 2^n for the integer n in the low bits of `shifted` (exp.h).
inline Lanes power_of_two(Lanes shifted) { return {power_of_two(shifted.low), power_of_two(shifted.high)}; }
// y where x >= limit, else 0.
inline Lanes zero_below(Lanes x, Lanes limit, Lanes y) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.low, limit.low, _CMP_GE_OQ), y.low),
            _mm256_and_ps(_mm256_cmp_ps(x.high, limit.high, _CMP_GE_OQ), y.high)};
}

inline float sum(Lanes a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float largest(Lanes a) {
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline __m256 eight_from_ints(const int32_t* p) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Lanes from_ints(const int32_t* p) { return {eight_from_ints(p), eight_from_ints(p + 8)}; }
inline Ints no_ints() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Ints round_half_even(Lanes a) { return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)}; }
inline Ints add(Ints a, Ints b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
inline int32_t sum(Ints a) {
    const __m256i eight = _mm256_add_epi32(a.low, a.high);
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
inline __m128i pack_i8(Ints a) {
    const __m128i low = _mm_packs_epi32(_mm256_castsi256_si128(a.low), _mm256_extracti128_si256(a.low, 1));
    const __m128i high = _mm_packs_epi32(_mm256_castsi256_si128(a.high), _mm256_extracti128_si256(a.high, 1));
    return _mm_packs_epi16(low, high);
}
inline void store_i8(int8_t* p, Ints a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), pack_i8(a)); }
inline void store8_i8(int8_t* p, Ints a) { _mm_storel_epi64(reinterpret_cast<__m128i*>(p), pack_i8(a)); }
// Values from 0 to 255.
inline void store_u8(uint8_t* p, Ints a) {
    const __m128i low = _mm_packs_epi32(_mm256_castsi256_si128(a.low), _mm256_extracti128_si256(a.low, 1));
    const __m128i high = _mm_packs_epi32(_mm256_castsi256_si128(a.high), _mm256_extracti128_si256(a.high, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(low, high));
}

}  // namespace
}  // namespace edge
