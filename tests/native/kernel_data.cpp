#include "kernel_data.h"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace edge_test {
namespace {

int failure_count = 0;

}  // namespace

void check(bool held, const std::string& what) {
    if (held) return;
    ++failure_count;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
}

int failures() { return failure_count; }

uint64_t Random::bits() {  // splitmix64
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int Random::between(int low, int high) { return low + static_cast<int>(bits() % static_cast<uint64_t>(high - low + 1)); }

float Random::real(float low, float high) {
    return low + (high - low) * (static_cast<float>(bits() >> 40) * 0x1p-24f);
}

std::vector<float> Random::reals(size_t n, float scale) {
    std::vector<float> out(n);
    for (float& x : out) x = real(-scale, scale);
    return out;
}

double half_value(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

uint16_t half_bits(double value) {
    for (int bits = 0; bits < 0x7c00; ++bits) {
        if (half_value(static_cast<uint16_t>(bits)) == std::fabs(value)) {
            return static_cast<uint16_t>(bits | (std::signbit(value) ? 0x8000 : 0));
        }
    }
    check(false, "a test asked for a float16 that does not exist");
    return 0;
}

TestPanel::TestPanel(int rows, int columns, int group, int bits, Random& random)
    : rows(rows), columns(columns), group(group), bits(bits), values(size_t(rows * columns)) {
    const int n_values = bits <= 4 ? 1 << bits : 16;
    int value = smallest();
    for (int i = 0; i < 16; ++i) {  // a codebook of 4 or 8 values is repeated
        codebook[i] = i < n_values ? static_cast<int8_t>(value) : codebook[i - n_values];
        value += random.between(32 / n_values, 64 / n_values);
        if (i == n_values - 1) codebook[i] = static_cast<int8_t>(largest());
    }
    for (int& v : values) v = bits <= 4 ? codebook[random.between(0, n_values - 1)] : random.between(smallest(), largest());
    pack(random);
}

int TestPanel::smallest() const { return bits < 8 ? -32 : -127; }
int TestPanel::largest() const { return bits < 8 ? 31 : 127; }

// Adds `width` bits of a code to a plane of a unit.
static void add_to_plane(uint8_t* plane, int width, int row, int column, int code) {
    const int position = (4 * row + column % 4) ^ (width == 1 ? 32 : 0), n_bytes = 16 * width;
    plane[position % n_bytes] |= static_cast<uint8_t>((code & ((1 << width) - 1)) << (column / 4 * 4 + width * (position / n_bytes)));
}

void TestPanel::pack(Random& random) {
    const int tiles = (rows + 15) / 16, units = columns / 8, unit_bytes = 16 * bits;
    const size_t code_bytes = size_t(tiles * units * unit_bytes);
    bytes.assign(code_bytes + size_t(tiles * groups() * 32), 0);
    for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < columns; ++c) {
            uint8_t* unit = bytes.data() + (r / 16 * units + c / 8) * unit_bytes;
            const int row = r % 16, column = c % 8, value = values[size_t(r * columns + c)];
            if (bits == 8) {
                unit[64 * (column / 4) + 4 * row + column % 4] = static_cast<uint8_t>(value);
                continue;
            }
            int code = value + 32;
            if (bits <= 4) {
                for (code = 0; codebook[code] != value;) ++code;
            }
            const int width = bits == 3 ? 2 : bits == 6 ? 4 : bits;  // of the first plane
            add_to_plane(unit, width, row, column, code);
            if (width < bits) add_to_plane(unit + 16 * width, bits - width, row, column, code >> width);
        }
    }
    scales.assign(size_t(rows * groups()), 0.0);
    for (int tile = 0; tile < tiles; ++tile) {
        for (int g = 0; g < groups(); ++g) {
            for (int row = 0; row < 16; ++row) {
                // Any finite float16, subnormal ones and zero among them; mostly of a usual size.
                uint16_t half = static_cast<uint16_t>(random.between(0x1000, 0x3000) | random.between(0, 1) << 15);
                if (random.between(0, 15) == 0) half = static_cast<uint16_t>(random.between(0, 0x7bff));
                std::memcpy(bytes.data() + code_bytes + size_t((tile * groups() + g) * 16 + row) * 2, &half, 2);
                if (tile * 16 + row < rows) scales[size_t((tile * 16 + row) * groups() + g)] = half_value(half);
            }
        }
    }
}

edge::Panel TestPanel::view() const {
    const size_t code_bytes = size_t((rows + 15) / 16 * (columns / 8) * 16 * bits);
    return {bytes.data(), reinterpret_cast<const uint16_t*>(bytes.data() + code_bytes), bits <= 4 ? codebook : nullptr,
            rows, columns, group};
}

TestActivations::TestActivations(int n_tokens, int columns, int group) {
    const int stride = (columns + 63) / 64 * 64, group_stride = ((columns + group - 1) / group + 15) / 16 * 16;
    codes.assign(size_t(n_tokens * stride), 99);
    scales.assign(size_t(n_tokens * group_stride), -1.0f);
    sums.assign(size_t(n_tokens * group_stride), -1);
    view = {codes.data(), scales.data(), sums.data(), stride, group_stride, columns, group};
}

void TestActivations::fill(int n_tokens, Random& random, bool extreme) {
    for (int t = 0; t < n_tokens; ++t) {
        for (int c = 0, g = 0; c < view.columns; c += view.group, ++g) {
            int32_t sum = 0;
            for (int i = c; i < c + view.group && i < view.columns; ++i) {
                const int code = extreme ? 127 - 254 * random.between(0, 1) : random.between(-127, 127);
                view.codes[t * view.stride + i] = static_cast<int8_t>(code);
                sum += code;
            }
            view.scales[t * view.group_stride + g] = random.real(0.0f, 0.1f);
            view.sums[t * view.group_stride + g] = sum;
        }
    }
}

}  // namespace edge_test
