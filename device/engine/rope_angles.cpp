#include "rope_angles.h"

#include <cmath>
#include <cstring>

namespace edge {
namespace {

constexpr double kTwoOverPi = 0.63661977236758134308;
// pi / 2 in two parts; the first has 33 bits, so that its product with a quadrant below 2^20 is exact.
constexpr double kHalfPiHigh = 1.57079632673412561417;
constexpr double kHalfPiLow = 6.07710050650619224932e-11;
constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves the nearest integer in the low bits

// Taylor series on |r| <= pi / 4; the first omitted terms are below 1e-11.
constexpr double kSine[] = {-1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800};
constexpr double kCosine[] = {-1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600};

}  // namespace

void rope_angles(const float* inv_freq, int n, int64_t position, float* cosine, float* sine) {
    for (int i = 0; i < n; ++i) {
        double angle = static_cast<double>(position) * static_cast<double>(inv_freq[i]);
        if (!(std::fabs(angle) < 1e9)) angle = 0;
        const double shifted = angle * kTwoOverPi + kRound;
        const double quadrant = shifted - kRound;
        const double r = (angle - quadrant * kHalfPiHigh) - quadrant * kHalfPiLow;
        const double r2 = r * r;
        double s = kSine[4], c = kCosine[5];
        for (int k = 3; k >= 0; --k) s = s * r2 + kSine[k];
        for (int k = 4; k >= 0; --k) c = c * r2 + kCosine[k];
        s = r + r * r2 * s;
        c = 1.0 + r2 * c;
        uint64_t bits;
        std::memcpy(&bits, &shifted, 8);
        const bool swap = bits & 1;
        const double sin_value = swap ? c : s, cos_value = swap ? s : c;
        sine[i] = static_cast<float>(bits & 2 ? -sin_value : sin_value);
        cosine[i] = static_cast<float>((bits + 1) & 2 ? -cos_value : cos_value);
    }
}

}  // namespace edge
