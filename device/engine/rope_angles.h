// Cosines and sines of rotary positions, with the same bits on every machine (libm differs between systems).
#pragma once
#include <cstdint>

namespace edge {

// cosine[i], sine[i] of position * inv_freq[i], computed in binary64 and rounded to binary32: error below 1e-9 for angles
// up to 10^6 before that rounding. Angles that are not finite, or above 10^9, count as 0.
void rope_angles(const float* inv_freq, int n, int64_t position, float* cosine, float* sine);

}  // namespace edge
