// The reference kernels against hand-worked cases and against plain double-precision formulas, within derived bounds.
// kEps is half a unit in the last place: the relative error of one rounded operation.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "kernel_data.h"
#include "kernels/exp.h"
#include "kernels/float16.h"
#include "kernels/registry.h"

using namespace edge;
using namespace edge_test;

namespace {

constexpr double kEps = 0x1p-24;

void test_float16() {
    int wrong = 0;
    for (int bits = 0; bits < 0x10000; ++bits) {
        const uint16_t half = static_cast<uint16_t>(bits);
        if ((half & 0x7c00) == 0x7c00) continue;
        const double value = half_value(half);
        if (f16_to_f32(half) != value || f32_to_f16(f16_to_f32(half)) != half) ++wrong;
        if ((half & 0x7fff) == 0x7bff) continue;  // the largest: what follows is infinite, below
        const double next = half_value(static_cast<uint16_t>(half + 1)), middle = (value + next) / 2;
        const uint16_t even = half & 1 ? static_cast<uint16_t>(half + 1) : half;
        const float at = static_cast<float>(middle), toward = std::nextafterf(at, static_cast<float>(value));
        const float away = std::nextafterf(at, static_cast<float>(next));
        if (f32_to_f16(at) != even || f32_to_f16(toward) != half || f32_to_f16(away) != half + 1) ++wrong;
    }
    check(wrong == 0, "float16: " + std::to_string(wrong) + " values differ");
    check(f32_to_f16(65519.0f) == 0x7bff && f32_to_f16(65520.0f) == 0x7c00 && f32_to_f16(-1e30f) == 0xfc00, "float16 overflow");
    check(f32_to_f16(1e-30f) == 0 && f32_to_f16(-0.0f) == 0x8000, "float16 underflow");
    check(std::isinf(f16_to_f32(0x7c00)) && std::isnan(f16_to_f32(0x7e01)), "float16 infinity and NaN");
    check((f32_to_f16(std::nanf("")) & 0x7fff) > 0x7c00, "a NaN stays one");
}

void test_exp() {
    double worst = 0;
    for (float x = -87.3f; x <= 88.34f; x += 1.1e-4f) {
        const double exact = std::exp(static_cast<double>(x));
        const double ulp = std::ldexp(1.0, std::ilogb(exact) - 23);
        worst = std::fmax(worst, std::fabs(edge_exp(x) - exact) / ulp);
    }
    std::printf("edge_exp: %.3f ulp at worst\n", worst);
    check(worst <= 2.0, "edge_exp is off by " + std::to_string(worst) + " ulp");
    check(edge_exp(0.0f) == 1.0f && edge_exp(-0.0f) == 1.0f, "e^0");
    check(edge_exp(-87.31f) == 0.0f && edge_exp(-3e38f) == 0.0f, "small arguments give 0");
    check(edge_exp(3e38f) == edge_exp(kExpHigh) && std::isfinite(edge_exp(3e38f)), "large arguments stay finite");
}

void test_matmul_by_hand() {
    Random random(1);
    TestPanel panel(1, 8, 8, 4, random);
    for (int i = 0; i < 16; ++i) panel.codebook[i] = static_cast<int8_t>(i - 8);
    for (int c = 0; c < 8; ++c) panel.values[size_t(c)] = c - 8;
    panel.pack(random);
    // The row is -8 .. -1; a unit's first four bytes hold columns 0..3 low and 4..7 high.
    check(panel.bytes[0] == 0x40 && panel.bytes[1] == 0x51 && panel.bytes[2] == 0x62 && panel.bytes[3] == 0x73, "4-bit bytes");
    const uint16_t half = half_bits(0.5);
    panel.bytes[64] = static_cast<uint8_t>(half & 255), panel.bytes[65] = static_cast<uint8_t>(half >> 8);
    TestActivations a(1, 8, 8);
    for (int c = 0; c < 8; ++c) a.codes[size_t(c)] = static_cast<int8_t>(c + 1);
    a.scales[0] = 2.0f, a.sums[0] = 36;
    float y = 1000.0f;
    select_isa("reference", nullptr);
    ops().matmul_q4(panel.view(), a.view, 0, 1, 0, 1, &y, 1, false);
    check(y == -120.0f, "-8 1 - 7 2 - ... - 1 8 = -120, got " + std::to_string(y));
    y = 1000.0f;
    ops().matmul_q4(panel.view(), a.view, 0, 1, 0, 1, &y, 1, true);
    check(y == 880.0f, "accumulate");
}

// Each group adds one product of scales and one fma: (groups + 2) roundings of at most the sum of magnitudes.
void test_matmul(int bits) {
    Random random(20);
    for (int i = 0; i < 60; ++i) {
        const int group = 8 * random.between(1, 16), columns = 8 * random.between(1, 30), rows = random.between(1, 40);
        const int a_column = group * random.between(0, 2), n_tokens = random.between(1, 3);
        TestPanel panel(rows, columns, group, bits, random);
        TestActivations a(n_tokens, a_column + columns, group);
        a.fill(n_tokens, random, false);
        std::vector<float> y(size_t(n_tokens * rows));
        const Ops& all = ops();
        const auto matmul = bits == 2 ? all.matmul_q2 : bits == 3 ? all.matmul_q3 : bits == 4 ? all.matmul_q4
                          : bits == 6 ? all.matmul_q6 : all.matmul_q8;
        matmul(panel.view(), a.view, a_column, n_tokens, 0, (rows + 15) / 16, y.data(), rows, false);
        for (int t = 0; t < n_tokens; ++t) {
            for (int r = 0; r < rows; ++r) {
                double exact = 0, magnitude = 0, group_sum = 0;
                for (int c = 0; c < columns; ++c) {
                    const double a_scale = a.scales[size_t(t * a.view.group_stride + (a_column + c) / group)];
                    group_sum += panel.weight(r, c) * a.codes[size_t(t * a.view.stride + a_column + c)] * a_scale;
                    if (c % group != group - 1 && c != columns - 1) continue;
                    exact += group_sum, magnitude += std::fabs(group_sum), group_sum = 0;
                }
                const double bound = (panel.groups() + 2) * kEps * magnitude * 1.001 + 1e-40;
                check(std::fabs(y[size_t(t * rows + r)] - exact) <= bound, "matmul " + std::to_string(bits) + " bits against double");
            }
        }
    }
}

void test_quantize() {
    const float x[8] = {127.0f, -63.5f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 0.49f};
    const int8_t expected[8] = {127, -64, 0, 2, 2, 0, -2, 0};  // scale 1, ties to even
    TestActivations a(1, 8, 8);
    ops().quantize(x, 8, 1, a.view);
    bool equal = a.scales[0] == 1.0f && a.sums[0] == 65;
    for (int i = 0; i < 8; ++i) equal = equal && a.codes[size_t(i)] == expected[i];
    check(equal, "quantize by hand");
    Random random(30);
    TestActivations b(2, 200, 24);
    const std::vector<float> y = random.reals(400, 5.0f);
    ops().quantize(y.data(), 200, 2, b.view);
    for (int i = 0; i < 400; ++i) {
        const int t = i / 200, c = i % 200;
        const double step = b.scales[size_t(t * b.view.group_stride + c / 24)];
        const double error = std::fabs(b.codes[size_t(t * b.view.stride + c)] * step - y[size_t(i)]);
        check(error <= step * (0.5 + 127 * 4 * kEps), "quantize: a code is the nearest");
    }
}

// Scores carry (qk / 16 + 8) roundings; a weight's relative error is that of its exponent, twice (its own and the sum's),
// and of edge_exp (2 ulp = 4 kEps), twice; then n_keys + 20 roundings of sums and products. With 8 bits a query element is
// off by half a step of the vector's largest / 127, and a weight by half a step of its block's largest / 255; a block
// whose largest score rises adds 2 roundings and an edge_exp.
struct ExactAttention {
    std::vector<double> k, v;  // (n_keys, qk), (n_keys, vo)
    const std::vector<float>& q;
    int n_queries, n_keys, qk, vo;
    bool is_q8;

    double value_scale(int key) const {
        double largest = 0;
        for (int c = 0; c < vo; ++c) largest = std::max(largest, std::fabs(v[size_t(key * vo + c)]));
        return largest / 127;
    }

    void compare(int token, int seen, const float* out) const {
        for (int h = 0; h < n_queries; ++h) {
            const float* query = q.data() + (token * n_queries + h) * qk;
            std::vector<double> s(static_cast<size_t>(seen)), magnitudes(s), shifts(s);
            double largest = 0, total = 0;
            for (int c = 0; c < qk; ++c) largest = std::max(largest, std::fabs(static_cast<double>(query[c])));
            const double step = is_q8 ? largest / 127 * 0.50001 : 0.0;
            for (int j = 0; j < seen; ++j) {
                for (int c = 0; c < qk; ++c) {
                    const double key = k[size_t(j * qk + c)] * 0.25;
                    s[size_t(j)] += query[c] * key;
                    magnitudes[size_t(j)] += std::fabs(query[c] * key) + step * std::fabs(key);
                    shifts[size_t(j)] += step * std::fabs(key);
                }
            }
            const double most = *std::max_element(s.begin(), s.end());
            const double spread = *std::max_element(magnitudes.begin(), magnitudes.end());
            const double score_error = *std::max_element(shifts.begin(), shifts.end());
            for (double& each : s) total += each = std::exp(each - most);
            const double rounding = 2 * (spread * (qk / 16 + 12) * kEps + 4 * kEps) + (seen + 20) * kEps;
            const double relative = std::expm1(2 * score_error) + rounding * std::exp(2 * score_error) + (is_q8 ? 20 * kEps : 0.0);
            for (int c = 0; c < vo; ++c) {
                double exact = 0, bound = 0;
                for (int first = 0; first < seen; first += kKeyBlock) {
                    double weights_step = 0, codes = 0;  // of a block: largest weight as the kernel scales it, sum of |codes|
                    for (int j = first; j < seen && j < first + kKeyBlock; ++j) {
                        const double part = s[size_t(j)] / total * v[size_t(j * vo + c)];
                        exact += part, bound += relative * std::fabs(part);
                        const double scale = value_scale(j);
                        weights_step = std::fmax(weights_step, s[size_t(j)] / total * scale);
                        codes += std::fabs(v[size_t(j * vo + c)]) / scale;
                    }
                    bound += (is_q8 ? 0.501 / 255 : 0.0) * weights_step * codes * (1 + relative);
                }
                check(std::fabs(out[h * vo + c] - exact) <= 1.01 * bound, "attention against double");
            }
        }
    }
};

void test_attention(bool is_q8) {
    Random random(40);
    for (int i = 0; i < 60; ++i) {
        const int n_queries = random.between(1, 3), n_keys = random.between(1, 150), qk = 8 * random.between(1, 9);
        const int vo = 8 * random.between(1, 9), n_tokens = random.between(1, 4), all_keys = n_keys + n_tokens - 1;
        const size_t held = size_t((all_keys + kKeyBlock - 1) / kKeyBlock * kKeyBlock);
        const std::vector<float> q = random.reals(size_t(n_tokens * n_queries * qk), 1.0f);
        std::vector<float> out(size_t(n_tokens * n_queries * vo));
        std::vector<float> work(size_t(std::max(attention_q8_work(n_tokens * n_queries, qk, vo), attention_f16_work(n_queries, all_keys))));
        std::vector<int8_t> k_codes(held * size_t(qk)), v_codes(held * size_t(padded_values(vo)));
        std::vector<uint16_t> k_halves(held * size_t(qk)), v_halves(held * size_t(vo)), k_scales(held), v_scales(held);
        ExactAttention exact{{}, {}, q, n_queries, all_keys, qk, vo, is_q8};
        for (int j = 0; j < all_keys; ++j) {
            for (const bool is_key : {true, false}) {
                const int n = is_key ? qk : vo;
                uint16_t& scale = (is_key ? k_scales : v_scales)[size_t(j)];
                scale = static_cast<uint16_t>(random.between(0x1c00, 0x2400));
                const int full = random.between(0, n - 1);  // one code is the largest, as a cache has it
                for (int c = 0; c < n; ++c) {
                    const int8_t code = c == full ? int8_t{127} : static_cast<int8_t>(random.between(-127, 127));
                    const uint16_t half = static_cast<uint16_t>(random.between(0x2c00, 0x3c00) | random.between(0, 1) << 15);
                    (is_key ? k_halves : v_halves)[size_t(j * n + c)] = half;
                    const int64_t at = is_key ? key_code_index(j, c, qk) : value_code_index(j, c, vo);
                    (is_key ? k_codes : v_codes)[size_t(at)] = code;
                    (is_key ? exact.k : exact.v).push_back(is_q8 ? code * half_value(scale) : half_value(half));
                }
            }
        }
        const void* k = is_q8 ? static_cast<const void*>(k_codes.data()) : k_halves.data();
        const void* v = is_q8 ? static_cast<const void*>(v_codes.data()) : v_halves.data();
        (is_q8 ? ops().attention_q8 : ops().attention_f16)({q.data(), k, k_scales.data(), v, v_scales.data(), work.data(),
                                                             out.data(), n_queries * qk, n_queries * vo, 0.25f, n_tokens, n_queries,
                                                             n_keys, qk, vo});
        for (int t = 0; t < n_tokens; ++t) exact.compare(t, n_keys + t, out.data() + t * n_queries * vo);
    }
}

void test_rms_norm_and_silu() {
    Random random(50);
    for (const int n : {8, 24, 576, 640}) {
        const std::vector<float> x = random.reals(size_t(n), 4.0f), gain = random.reals(size_t(n), 2.0f);
        std::vector<float> y(static_cast<size_t>(n)), gate = x;
        ops().rms_norm(x.data(), gain.data(), 1e-5f, n, y.data());
        ops().silu_mul(gate.data(), gain.data(), n);
        double squares = 0;
        for (const float each : x) squares += static_cast<double>(each) * each;
        for (int i = 0; i < n; ++i) {
            const double normed = x[size_t(i)] / std::sqrt(squares / n + 1e-5f) * gain[size_t(i)];
            // half the error of the sum (root), then root, quotient and two products
            check(std::fabs(y[size_t(i)] - normed) <= std::fabs(normed) * kEps * ((n / 16 + 8) / 2.0 + 5), "rms_norm against double");
            const double silu = x[size_t(i)] / (1 + std::exp(-static_cast<double>(x[size_t(i)]))) * gain[size_t(i)];
            check(std::fabs(gate[size_t(i)] - silu) <= std::fabs(silu) * kEps * 8, "silu_mul against double");
        }
    }
    float gate[8] = {0.0f, 200.0f, -200.0f, 1e38f, -1e38f, 0.0f, 0.0f, 0.0f};
    const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    ops().silu_mul(gate, ones, 8);
    check(gate[0] == 0.0f && gate[1] == 200.0f && std::fabs(gate[2]) < 1e-30f && gate[3] == 1e38f && std::isfinite(gate[4]),
          "silu far from zero");
}

// Straight from SPEC.md section 3: where element r of head h stands, and which pairs turn together.
void test_rope() {
    Random random(60);
    for (const int quantum : {2, 4, 8, 24}) {
        const int n_kv_heads = 3, n_heads = 6, n_queries = 2, dims = quantum * 3, pairs = dims / 2, half = quantum / 2;
        const auto position = [&](int r, int heads, int h, int q) { return r / q * heads * q + h * q + r % q; };
        const std::vector<float> x = random.reals(size_t(n_heads * dims), 3.0f);
        const auto n_pairs = static_cast<size_t>(pairs);
        std::vector<float> cosine(n_pairs), sine(cosine.size()), out(x.size()), moved(x.size()), back(x.size());
        for (size_t i = 0; i < cosine.size(); ++i) {
            const float angle = random.real(-3.0f, 3.0f);
            cosine[i] = std::cos(angle), sine[i] = std::sin(angle);
        }
        for (int kv = 0; kv < n_kv_heads; ++kv) {
            const float* heads = x.data() + kv * n_queries * quantum;
            const int64_t at = int64_t{kv} * n_queries * dims, stride = int64_t{n_heads} * quantum;
            ops().rope({heads, cosine.data(), sine.data(), out.data() + at, stride, n_queries, dims, quantum});
            ops().rope({heads, nullptr, nullptr, moved.data() + at, stride, n_queries, dims, quantum});
        }
        ops().merge_heads(moved.data(), n_heads, dims, quantum, back.data());
        check(back == x, "merge_heads undoes the change of order");
        for (int h = 0; h < n_heads; ++h) {
            for (int p = 0; p < pairs; ++p) {
                const int r = p / half * quantum + p % half;
                const double a = x[size_t(position(r, n_heads, h, quantum))];
                const double b = x[size_t(position(r + half, n_heads, h, quantum))];
                const double c = cosine[size_t(p)], s = sine[size_t(p)], bound = 3 * kEps * (std::fabs(a) + std::fabs(b));
                const float* head = out.data() + h * dims;
                check(moved[size_t(h * dims + r)] == a && moved[size_t(h * dims + r + half)] == b, "values only move");
                check(std::fabs(head[r] - (a * c - b * s)) <= bound && std::fabs(head[r + half] - (b * c + a * s)) <= bound,
                      "rope by formula, quantum " + std::to_string(quantum));
            }
        }
    }
}

void test_embed_and_stores() {
    Random random(70);
    for (const int bits : {2, 3, 4, 6, 8}) {
        const TestPanel panel(37, 72, 32, bits, random);
        std::vector<float> row(72);
        for (int r = 0; r < 37; ++r) {
            ops().embed_row(panel.view(), bits, r, 3.0f, row.data());
            for (int c = 0; c < 72; ++c) {
                const double exact = 3.0 * panel.weight(r, c);
                check(std::fabs(row[size_t(c)] - exact) <= std::fabs(exact) * 2 * kEps + 1e-40,
                      "embedding row of " + std::to_string(bits) + " bits");
            }
        }
    }
    for (const float size : {1.0f, 1e-6f, 1e-12f, 0.0f, 3e4f, 1e9f}) {
        const std::vector<float> x = random.reals(64, size);
        std::vector<int8_t> codes(64);
        uint16_t scale;
        ops().store_q8(x.data(), 64, codes.data(), &scale);
        const double step = half_value(scale);
        for (int i = 0; i < 64; ++i) {
            const double clamped = std::fmax(std::fmin(x[size_t(i)], 127 * step), -127 * step);
            check(codes[size_t(i)] >= -127 && std::fabs(codes[size_t(i)] * step - clamped) <= step * 0.50001, "cache codes");
        }
        std::vector<uint16_t> halves(64);
        ops().store_f16(x.data(), 64, halves.data());
        for (int i = 0; i < 64; ++i) check(halves[size_t(i)] == f32_to_f16(x[size_t(i)]), "cache float16");
    }
    const float x[8] = {1.27f, -1.27f, 0.635f, 0.0f, 0.011f, -0.02f, 0.1f, 1.0f};
    int8_t codes[8];
    uint16_t scale;
    ops().store_q8(x, 8, codes, &scale);  // 1.27 / 127 = 0.01 rounds to 0x211f = 0.0100021...
    check(scale == 0x211f && codes[0] == 127 && codes[1] == -127 && codes[2] == 63 && codes[4] == 1 && codes[5] == -2, "by hand");
}

}  // namespace

int main() {
    test_float16();
    test_exp();
    test_matmul_by_hand();
    for (const int bits : {2, 3, 4, 6, 8}) test_matmul(bits);
    test_quantize();
    test_attention(true);
    test_attention(false);
    test_rms_norm_and_silu();
    test_rope();
    test_embed_and_stores();
    std::printf("%d failures\n", failures());
    return failures() != 0;
}
