// Every kernel in kernels.inc that this machine can run gives the bits of the reference: over a table of edge cases and
// random shapes, with canaries around every output.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "kernel_data.h"
#include "kernels/registry.h"

namespace edge {
#define EDGE_KERNEL(op, isa, function) op##_t function;
#include "kernels/kernels.inc"
#undef EDGE_KERNEL
}  // namespace edge

using namespace edge;
using namespace edge_test;

namespace {

constexpr float kCanary = 12345.5f;

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

struct MatmulCase {
    int rows, columns, group, n_tokens, a_column, tile_begin, tile_end;
    bool accumulate, extreme;
    int y_extra;
};

// rows that fill no tile, short last groups, groups of 8, 24 and 128, odd token counts, blocks longer than a token block,
// parts of the tiles, parts of the activations, sums that would overflow 16 bits.
constexpr MatmulCase kMatmulCases[] = {
    {1, 8, 8, 1, 0, 0, 1, false, false, 0},     {16, 32, 32, 1, 0, 0, 1, false, false, 0},
    {17, 40, 32, 1, 0, 0, 2, false, false, 5},  {33, 72, 24, 1, 24, 0, 3, true, false, 3},
    {64, 64, 32, 4, 32, 1, 3, true, false, 0},  {47, 136, 32, 3, 64, 0, 3, false, false, 1},
    {48, 256, 128, 5, 0, 0, 3, true, true, 0},  {80, 96, 32, 7, 0, 0, 5, false, true, 9},
    {31, 104, 24, 33, 0, 0, 2, true, false, 2}, {32, 64, 64, 70, 64, 0, 2, false, false, 0},
    {5, 16, 16, 2, 0, 0, 1, true, true, 0},     {160, 576, 32, 6, 0, 3, 10, false, false, 0},
    {96, 8, 8, 9, 8, 2, 2, false, false, 0},    {50, 128, 128, 1, 0, 1, 4, true, true, 4},
};

void compare_matmul(matmul_t* kernel, matmul_t* reference, const char* name, int bits, const MatmulCase& c, Random& random) {
    TestPanel panel(c.rows, c.columns, c.group, bits, random);
    if (c.extreme) {
        for (int& value : panel.values) value = random.between(0, 1) == 0 ? panel.smallest() : panel.largest();
        panel.pack(random);
    }
    TestActivations a(c.n_tokens, c.a_column + c.columns, c.group);
    a.fill(c.n_tokens, random, c.extreme);
    const int y_stride = c.rows + c.y_extra;
    std::vector<float> expected(size_t((c.n_tokens - 1) * y_stride + c.rows), kCanary);
    if (c.accumulate) expected = random.reals(expected.size(), 3.0f);
    std::vector<float> y = expected;
    reference(panel.view(), a.view, c.a_column, c.n_tokens, c.tile_begin, c.tile_end, expected.data(), y_stride, c.accumulate);
    kernel(panel.view(), a.view, c.a_column, c.n_tokens, c.tile_begin, c.tile_end, y.data(), y_stride, c.accumulate);
    char text[200];
    std::snprintf(text, sizeof text, "%s: %d x %d, group %d, %d tokens, column %d, tiles %d..%d, accumulate %d", name, c.rows,
                  c.columns, c.group, c.n_tokens, c.a_column, c.tile_begin, c.tile_end, c.accumulate);
    check(same(y, expected), text);
}

void compare_all_matmuls(matmul_t* kernel, matmul_t* reference, const char* name, int bits) {
    Random random(static_cast<uint64_t>(bits));
    for (const MatmulCase& c : kMatmulCases) compare_matmul(kernel, reference, name, bits, c, random);
    for (int i = 0; i < 120; ++i) {
        MatmulCase c{};
        c.group = 8 * random.between(1, 16);
        if (random.between(0, 2) == 0) c.group = 32;
        c.rows = random.between(1, 70);
        c.columns = 8 * random.between(1, 40);
        c.n_tokens = random.between(0, 2) == 0 ? 1 : random.between(2, 40);
        c.a_column = c.group * random.between(0, 2);
        c.tile_end = random.between(0, (c.rows + 15) / 16);
        c.tile_begin = random.between(0, c.tile_end);
        c.accumulate = random.between(0, 1) == 1;
        c.y_extra = random.between(0, 9);
        compare_matmul(kernel, reference, name, bits, c, random);
    }
}

void compare_matmul_q2(matmul_q2_t* kernel, const char* name) { compare_all_matmuls(kernel, matmul_q2_reference, name, 2); }
void compare_matmul_q3(matmul_q3_t* kernel, const char* name) { compare_all_matmuls(kernel, matmul_q3_reference, name, 3); }
void compare_matmul_q6(matmul_q6_t* kernel, const char* name) { compare_all_matmuls(kernel, matmul_q6_reference, name, 6); }
void compare_matmul_q4(matmul_q4_t* kernel, const char* name) { compare_all_matmuls(kernel, matmul_q4_reference, name, 4); }
void compare_matmul_q8(matmul_q8_t* kernel, const char* name) { compare_all_matmuls(kernel, matmul_q8_reference, name, 8); }

void compare_quantize(quantize_t* kernel, const char* name) {
    Random random(3);
    for (int i = 0; i < 200; ++i) {
        const int n_tokens = random.between(1, 4), columns = 8 * random.between(1, 40), group = 8 * random.between(1, 16);
        const int x_stride = columns + random.between(0, 5);
        const float sizes[] = {1.0f, 1e-20f, 3e4f, 1e-31f, 1e-38f, 0.0f, 1e30f};
        std::vector<float> x = random.reals(size_t((n_tokens - 1) * x_stride + columns), sizes[i % 7]);
        if (i % 3 == 0) {  // many exact halves: ties must go to even
            for (float& value : x) value = static_cast<float>(random.between(-254, 254)) * 0.5f;
            x[0] = 127.0f;
        }
        TestActivations a(n_tokens, columns, group), b(n_tokens, columns, group);
        quantize_reference(x.data(), x_stride, n_tokens, a.view);
        kernel(x.data(), x_stride, n_tokens, b.view);
        check(same(a.codes, b.codes) && same(a.scales, b.scales) && same(a.sums, b.sums),
              std::string(name) + ": columns " + std::to_string(columns) + ", group " + std::to_string(group));
    }
}

// Caches hold whole blocks of keys; what lies behind the last one is finite and unused.
struct AttentionData {
    std::vector<float> q, work, out;
    std::vector<uint8_t> k, v;
    std::vector<uint16_t> k_scales, v_scales;
    AttentionArgs args;

    AttentionData(int n_tokens, int n_queries, int n_keys, int qk, int vo, bool is_q8, float size, Random& random) {
        const int q_stride = n_queries * qk + random.between(0, 5), out_stride = n_queries * vo + random.between(0, 5);
        const int64_t last = n_keys + n_tokens - 1, keys = (last + kKeyBlock - 1) / kKeyBlock * kKeyBlock;
        q = random.reals(size_t(n_tokens * q_stride), size);
        out.assign(size_t((n_tokens - 1) * out_stride + n_queries * vo), kCanary);
        work.assign(size_t(std::max(attention_q8_work(n_tokens * n_queries, qk, vo), attention_f16_work(n_queries, last))), kCanary);
        const auto fill = [&](std::vector<uint8_t>& cache, int64_t n) {
            for (int64_t i = 0; i < n; ++i) {
                if (is_q8) {
                    cache.push_back(static_cast<uint8_t>(random.between(-127, 127)));
                } else {  // any float16 up to 8, of both signs
                    const int half = random.between(0, 0x4800) | random.between(0, 1) << 15;
                    cache.push_back(static_cast<uint8_t>(half & 255));
                    cache.push_back(static_cast<uint8_t>(half >> 8));
                }
            }
        };
        fill(k, keys * qk), fill(v, keys * padded_values(vo));
        const int most = random.between(0, 7) == 0 ? 0 : 0x3c00;  // now and then all values are zero
        for (int64_t j = 0; is_q8 && j < keys; ++j) {
            k_scales.push_back(static_cast<uint16_t>(random.between(0, 0x2c00)));
            v_scales.push_back(static_cast<uint16_t>(random.between(0, most)));
        }
        args = {q.data(), k.data(), k_scales.data(), v.data(), v_scales.data(), work.data(), out.data(),
                q_stride, out_stride, 0.125f, n_tokens, n_queries, n_keys, qk, vo};
    }
    std::vector<float> run(attention_q8_t* kernel) {
        work.assign(work.size(), kCanary);
        out.assign(out.size(), kCanary);
        kernel(args);
        return out;
    }
};

void compare_attention(attention_q8_t* kernel, attention_q8_t* reference, const char* name, bool is_q8) {
    Random random(4);
    for (int i = 0; i < 250; ++i) {
        const int n_queries = random.between(1, 9), n_keys = i % 5 == 0 ? i / 5 + 1 : random.between(1, 200);
        const int n_tokens = i % 3 == 0 ? 1 : random.between(1, 12), qk = 8 * random.between(1, 20), vo = 8 * random.between(1, 20);
        AttentionData data(n_tokens, n_queries, n_keys, qk, vo, is_q8, i % 2 == 0 ? 1.0f : 40.0f, random);
        if (i % 4 > 1) data.args.window = i % 7 == 0 ? 1 : random.between(1, 160);
        if (i % 5 > 2) data.args.softcap = i % 2 == 0 ? 50.0f : 0.5f;
        check(same(data.run(reference), data.run(kernel)),
              std::string(name) + ": tokens " + std::to_string(n_tokens) + ", queries " + std::to_string(n_queries) + ", keys " +
                  std::to_string(n_keys) + ", qk " + std::to_string(qk) + ", vo " + std::to_string(vo) + ", window " +
                  std::to_string(data.args.window) + ", softcap " + std::to_string(data.args.softcap));
    }
}

void compare_attention_q8(attention_q8_t* kernel, const char* name) {
    compare_attention(kernel, attention_q8_reference, name, true);
}
void compare_attention_f16(attention_f16_t* kernel, const char* name) {
    compare_attention(kernel, attention_f16_reference, name, false);
}

void compare_rms_norm(rms_norm_t* kernel, const char* name) {
    Random random(5);
    for (int n = 8; n < 700; n += 8) {
        const std::vector<float> x = random.reals(size_t(n), n % 3 == 0 ? 1e-12f : 30.0f), gain = random.reals(size_t(n), 2.0f);
        std::vector<float> expected(size_t(n), kCanary), in_place = x;
        rms_norm_reference(x.data(), gain.data(), 1e-5f, n, expected.data());
        kernel(in_place.data(), gain.data(), 1e-5f, n, in_place.data());
        check(same(in_place, expected), std::string(name) + ": n " + std::to_string(n));
    }
}

void compare_gated(silu_mul_t* kernel, silu_mul_t* reference, const char* name) {
    Random random(6);
    const float sizes[] = {1.0f, 20.0f, 100.0f, 1e30f, 1e-30f};
    for (int n = 8; n < 2000; n += 40) {
        std::vector<float> gate = random.reals(size_t(n), sizes[n / 8 % 5]);
        const std::vector<float> up = random.reals(size_t(n), 3.0f);
        std::vector<float> expected = gate;
        reference(expected.data(), up.data(), n);
        kernel(gate.data(), up.data(), n);
        check(same(gate, expected), std::string(name) + ": n " + std::to_string(n));
    }
}

void compare_silu_mul(silu_mul_t* kernel, const char* name) { compare_gated(kernel, silu_mul_reference, name); }
void compare_gelu_mul(gelu_mul_t* kernel, const char* name) { compare_gated(kernel, gelu_mul_reference, name); }

void compare_softcap(softcap_t* kernel, const char* name) {
    Random random(8);
    const float sizes[] = {1.0f, 20.0f, 300.0f, 1e30f, 1e-30f};
    for (int n = 1; n < 200; ++n) {
        std::vector<float> x = random.reals(size_t(n) + 1, sizes[n % 5]);
        std::vector<float> expected = x;
        softcap_reference(expected.data(), 30.0f, n);
        kernel(x.data(), 30.0f, n);
        check(same(x, expected), std::string(name) + ": n " + std::to_string(n));
    }
}

void compare_store_q8(store_q8_t* kernel, const char* name) {
    Random random(7);
    const float sizes[] = {1.0f, 1e-6f, 1e-9f, 1e6f, 3e7f};  // the last but one clips nothing, the last does; 1e-9: all zero
    for (int n = 8; n < 300; n += 8) {
        for (const float size : sizes) {
            const std::vector<float> x = random.reals(size_t(n), size);
            std::vector<int8_t> expected(size_t(n) + 16, 99), found = expected;
            uint16_t expected_scale = 0, scale = 1;
            store_q8_reference(x.data(), n, expected.data(), &expected_scale);
            kernel(x.data(), n, found.data(), &scale);
            check(found == expected && scale == expected_scale, std::string(name) + ": n " + std::to_string(n));
        }
    }
}

void compare_dot_f16(dot_f16_t* kernel, const char* name) {
    Random random(8);
    for (int n = 8; n < 400; n += 8) {
        const int n_rows = random.between(1, 9);
        const std::vector<float> x = random.reals(size_t(n), 3.0f);
        std::vector<uint16_t> w;
        for (int i = 0; i < n_rows * n; ++i) w.push_back(static_cast<uint16_t>(random.between(0, 0x4800) | random.between(0, 1) << 15));
        std::vector<float> expected(size_t(n_rows) + 16, kCanary), found = expected;
        dot_f16_reference(w.data(), x.data(), n_rows, n, expected.data());
        kernel(w.data(), x.data(), n_rows, n, found.data());
        check(same(found, expected), std::string(name) + ": n " + std::to_string(n));
    }
}

void compare_conv_silu(conv_silu_t* kernel, const char* name) {
    Random random(9);
    for (int i = 0; i < 200; ++i) {
        const int quantum = 8 * random.between(1, 4), dims = quantum * random.between(1, 3), n_heads = random.between(1, 5);
        const int kernel_size = random.between(2, kMaxConvKernel), n_tokens = random.between(1, 9), rows = n_heads * dims;
        const int x_stride = rows + random.between(0, 5), out_stride = rows + random.between(0, 5);
        const int n_runs = rows / quantum, begin = random.between(0, n_runs), end = random.between(begin, n_runs);
        const std::vector<float> x = random.reals(size_t(n_tokens * x_stride), i % 3 ? 2.0f : 60.0f);
        const std::vector<float> taps = random.reals(size_t((kernel_size + 1) * rows), 1.0f);
        const std::vector<float> past = random.reals(size_t((kernel_size - 1) * rows), 2.0f);
        const auto run = [&](conv_silu_t* op) {
            std::vector<float> all(size_t(n_tokens * out_stride), kCanary), own = past;
            op({x.data(), taps.data(), own.data(), all.data(), x_stride, out_stride, n_tokens, kernel_size, n_heads, dims, quantum,
                begin, end});
            all.insert(all.end(), own.begin(), own.end());
            return all;
        };
        check(same(run(kernel), run(conv_silu_reference)), std::string(name) + ": quantum " + std::to_string(quantum) + ", " +
                                                               std::to_string(kernel_size) + " taps");
    }
}

void compare_ssm_scan(ssm_scan_t* kernel, const char* name) {
    Random random(10);
    for (int i = 0; i < 200; ++i) {
        const int dims = 8 * random.between(1, 9), n_states = 8 * random.between(1, 9), n_tokens = i % 3 ? random.between(1, 20) : 1;
        const int x_stride = dims + random.between(0, 5), state_stride = n_states + random.between(0, 5);
        const int step_stride = random.between(1, 4), y_stride = dims + random.between(0, 5);
        const std::vector<float> x = random.reals(size_t(n_tokens * x_stride), 3.0f);
        const std::vector<float> b = random.reals(size_t(n_tokens * state_stride), 2.0f), c = random.reals(b.size(), 2.0f);
        const std::vector<float> steps = random.reals(size_t(n_tokens * step_stride), 1.0f), decays = random.reals(steps.size(), 1.0f);
        const std::vector<float> state = random.reals(size_t(n_states * dims), 1.0f);
        const auto run = [&](ssm_scan_t* op) {
            std::vector<float> all(size_t(n_tokens * y_stride), kCanary), own = state;
            op({x.data(), b.data(), c.data(), steps.data(), decays.data(), own.data(), all.data(), x_stride, state_stride, step_stride,
                y_stride, 0.7f, n_tokens, n_states, dims});
            all.insert(all.end(), own.begin(), own.end());
            return all;
        };
        check(same(run(kernel), run(ssm_scan_reference)), std::string(name) + ": dims " + std::to_string(dims) + ", states " +
                                                              std::to_string(n_states) + ", tokens " + std::to_string(n_tokens));
    }
}

// These ops have one implementation today; test_kernel_reference.cpp holds their meaning. A second one needs a comparison.
void compare_rope(rope_t* kernel, const char* name) { check(kernel == rope_reference, name); }
void compare_merge_heads(merge_heads_t* kernel, const char* name) { check(kernel == merge_heads_reference, name); }
void compare_embed_row(embed_row_t* kernel, const char* name) { check(kernel == embed_row_reference, name); }
void compare_ssm_step(ssm_step_t* kernel, const char* name) { check(kernel == ssm_step_reference, name); }
void compare_store_f16(store_f16_t* kernel, const char* name) { check(kernel == store_f16_reference, name); }

void compare_dot_peak(dot_peak_t* kernel, const char* name) {
    int32_t sink = 7;
    const int64_t once = kernel(1, &sink);
    check(once > 0 && kernel(100, &sink) == 100 * once, name);
}

}  // namespace

int main() {
    int n_run = 0;
#define EDGE_KERNEL(op, isa, function)                      \
    if ((supported_isas() & isa_bit(Isa::isa)) != 0) {      \
        compare_##op(function, #function);                  \
        ++n_run;                                            \
    } else {                                                \
        std::printf("not run here: %s\n", #function);       \
    }
#include "kernels/kernels.inc"
#undef EDGE_KERNEL
    std::printf("%d kernels run, best set %s, %d failures\n", n_run, isa_name(), failures());
    return failures() != 0;
}
