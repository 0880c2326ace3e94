// Inputs for the kernel tests: random numbers, panels packed by the rules of formats/SPEC.md section 4, quantized activations.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace edge_test {

class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t bits();
    int between(int low, int high);         // both inclusive
    float real(float low, float high);
    std::vector<float> reals(size_t n, float scale);  // within +-scale

private:
    uint64_t state_;
};

// A weight as plain matrices beside its packed form.
struct TestPanel {
    int rows, columns, group, bits;
    std::vector<int> values;       // (rows, columns)
    std::vector<double> scales;    // (rows, groups)
    std::vector<uint8_t> bytes;    // codes, then scales
    alignas(16) int8_t codebook[16];

    TestPanel(int rows, int columns, int group, int bits, Random& random);
    void pack(Random& random);     // again, after values changed: every value must be in the codebook at 2, 3 and 4 bits
    int smallest() const;          // of the values that codes can have
    int largest() const;
    int groups() const { return (columns + group - 1) / group; }
    double weight(int row, int column) const { return values[size_t(row * columns + column)] * scale(row, column / group); }
    double scale(int row, int g) const { return scales[size_t(row * groups() + g)]; }
    edge::Panel view() const;
};

struct TestActivations {
    std::vector<int8_t> codes;
    std::vector<float> scales;
    std::vector<int32_t> sums;
    edge::Activations view;

    TestActivations(int n_tokens, int columns, int group);
    void fill(int n_tokens, Random& random, bool extreme);  // codes over the whole range, or only +-127
};

uint16_t half_bits(double value);  // of a value that float16 holds exactly
double half_value(uint16_t bits);

// Counts and prints; a program returns failures() != 0.
void check(bool held, const std::string& what);
int failures();

}  // namespace edge_test
