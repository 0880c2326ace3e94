#include <cmath>

#include "kernels/ops.h"

namespace edge {

quantize_t quantize_reference;

namespace {

void quantize_group(const float* x, int n, int8_t* codes, float* scale, int32_t* sum) {
    float largest = 0.0f;
    for (int i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(x[i]));
    const float inverse = largest >= 1e-30f ? 127.0f / largest : 0.0f;
    *scale = largest / 127.0f;
    *sum = 0;
    for (int i = 0; i < n; ++i) {
        const float rounded = std::nearbyint(x[i] * inverse);
        codes[i] = static_cast<int8_t>(std::fabs(rounded) <= 127.0f ? rounded : 0.0f);  // not so only when x is not finite
        *sum += codes[i];
    }
}

}  // namespace

void quantize_reference(const float* x, int64_t x_stride, int n_tokens, Activations& out) {
    for (int t = 0; t < n_tokens; ++t) {
        const float* row = x + t * x_stride;
        for (int begin = 0, g = 0; begin < out.columns; begin += out.group, ++g) {
            const int n = out.columns - begin < out.group ? out.columns - begin : out.group;
            const int64_t at = static_cast<int64_t>(t) * out.group_stride + g;
            quantize_group(row + begin, n, out.codes + static_cast<int64_t>(t) * out.stride + begin, out.scales + at,
                           out.sums + at);
        }
    }
}

}  // namespace edge
