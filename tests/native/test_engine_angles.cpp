// Rotary angles against the long double functions of libm.
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "engine_check.h"
#include "rope_angles.h"

using namespace edge;

int main() {
    std::vector<float> inv_freq, cosine(64), sine(64);
    for (int i = 0; i < 63; ++i) inv_freq.push_back(static_cast<float>(std::pow(10000.0, -i / 31.5)));
    inv_freq.push_back(0);  // a pair that does not turn
    double worst = 0;
    for (const int64_t position : {0, 1, 2, 3, 7, 100, 2047, 8191, 131071, 999999}) {
        rope_angles(inv_freq.data(), 64, position, cosine.data(), sine.data());
        for (size_t i = 0; i < 64; ++i) {
            const long double angle = static_cast<long double>(position) * static_cast<long double>(inv_freq[i]);
            worst = std::fmax(worst, std::fabs(static_cast<double>(cosine[i] - std::cos(angle))));
            worst = std::fmax(worst, std::fabs(static_cast<double>(sine[i] - std::sin(angle))));
        }
        check(cosine[63] == 1 && sine[63] == 0, "frequency 0");
    }
    check(worst < 0x1p-25 + 1e-9, "error " + std::to_string(worst * 1e9) + "e-9, half a unit in the last place is 29.8e-9");
    const float wild[3] = {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 1e30f};
    rope_angles(wild, 3, 5, cosine.data(), sine.data());
    for (size_t i = 0; i < 3; ++i) check(cosine[i] == 1 && sine[i] == 0, "what is no angle counts as 0");
    return finish();
}
