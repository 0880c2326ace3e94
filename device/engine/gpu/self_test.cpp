// Over 500 lines: it has one function for each kernel, and they share the class that sends, receives and compares.
#include "self_test.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "device_memory.h"
#include "errors.h"
#include "kernel_source.h"
#include "kernels/float16.h"
#include "kernels/ops.h"
#include "operations.h"
#include "program_cache.h"
#include "rope_angles.h"

namespace edge {

quantize_t quantize_reference;
matmul_q2_t matmul_q2_reference;
matmul_q3_t matmul_q3_reference;
matmul_q4_t matmul_q4_reference;
matmul_q6_t matmul_q6_reference;
matmul_q8_t matmul_q8_reference;
attention_q8_t attention_q8_reference;
attention_f16_t attention_f16_reference;
rms_norm_t rms_norm_reference;
silu_mul_t silu_mul_reference;
gelu_mul_t gelu_mul_reference;
softcap_t softcap_reference;
rope_t rope_reference;
merge_heads_t merge_heads_reference;
embed_row_t embed_row_reference;
store_q8_t store_q8_reference;
store_f16_t store_f16_reference;
dot_f16_t dot_f16_reference;
conv_silu_t conv_silu_reference;
ssm_step_t ssm_step_reference;
ssm_scan_t ssm_scan_reference;

namespace gpu {
namespace {

// What a device may differ by that rounds divisions and square roots less well than the CPU: floats by this share of the largest,
// and a code by one step. Attention adds up many such codes.
constexpr float kTolerance = 1e-5f, kAttentionTolerance = 4e-3f;
constexpr int kColumns = 72, kGroupColumns = 32;  // a short last group
constexpr float kEps = 1e-5f;

size_t as_size(int64_t n) { return static_cast<size_t>(n); }

class Numbers {
public:
    uint32_t next() { return state_ = state_ * 1664525u + 1013904223u, state_ >> 8; }
    float real(float low, float high) { return low + (high - low) * static_cast<float>(next()) * 0x1p-24f; }
    std::vector<float> reals(int64_t n, float low = -2.0f, float high = 2.0f) {
        std::vector<float> values(as_size(n));
        for (float& value : values) value = real(low, high);
        return values;
    }

private:
    uint32_t state_ = 1;
};

// Activations on this side, as `quantize` makes them.
struct Codes {
    Codes(int n_tokens, int32_t own_columns, int32_t own_group)
        : n(n_tokens),
          columns(own_columns),
          group(own_group),
          stride((columns + 63) / 64 * 64),
          group_stride(((columns + group - 1) / group + 15) / 16 * 16),
          codes(as_size(int64_t{n} * stride)),
          scales(as_size(int64_t{n} * group_stride)),
          sums(scales.size()) {}

    Activations view() { return {codes.data(), scales.data(), sums.data(), stride, group_stride, columns, group}; }
    void quantize(const std::vector<float>& x, int64_t x_stride) {
        Activations out = view();
        quantize_reference(x.data(), x_stride, n, out);
    }

    int n;
    int32_t columns, group, stride, group_stride;
    std::vector<int8_t> codes;
    std::vector<float> scales;
    std::vector<int32_t> sums;
};

// A weight with random codes, in panels of these widths (bits) side by side (by_columns) or one below the other.
class RandomWeight {
public:
    RandomWeight(Numbers& numbers, int32_t rows, int32_t columns, std::vector<int32_t> bits, bool by_columns) : by_columns_(by_columns) {
        const auto n_panels = static_cast<int32_t>(bits.size());
        bytes_.resize(bits.size());
        panels_.resize(bits.size());
        for (int32_t p = 0; p < n_panels; ++p) {
            add(numbers, as_size(p), by_columns ? rows : rows / n_panels, by_columns ? columns / n_panels : columns, bits[as_size(p)]);
        }
        weight.panels = panels_;
        weight.column_panels = by_columns;
        weight.rows = rows;
        weight.columns = columns;
        weight.group = kGroupColumns;
    }
    RandomWeight(const RandomWeight&) = delete;
    RandomWeight& operator=(const RandomWeight&) = delete;

    Weight weight;

private:
    void add(Numbers& numbers, size_t p, int32_t rows, int32_t columns, int32_t bits) {
        WeightPanel& out = panels_[p];
        Panel& panel = out.panel;
        panel.rows = rows;
        panel.columns = columns;
        panel.group = kGroupColumns;
        const int64_t code_bytes = int64_t{columns} * bits * 2, n_tiles = panel_tiles(panel);
        out.tile_bytes = code_bytes + int64_t{panel_groups(panel)} * kTileRows * 2;
        out.bits = bits;
        if (by_columns_) out.column_begin = static_cast<int32_t>(p) * columns;
        if (!by_columns_) out.row_begin = static_cast<int64_t>(p) * rows;
        bytes_[p].resize(as_size(n_tiles * out.tile_bytes));
        for (uint8_t& byte : bytes_[p]) {
            byte = static_cast<uint8_t>(numbers.next());
            if (bits == 8 && byte == 0x80) byte = 0x81;
        }
        auto* scales = reinterpret_cast<uint16_t*>(bytes_[p].data() + n_tiles * code_bytes);
        for (int64_t i = 0; i < n_tiles * panel_groups(panel) * kTileRows; ++i) scales[i] = f32_to_f16(numbers.real(0.01f, 0.05f));
        panel.codes = bytes_[p].data();
        panel.scales = scales;
        panel.codebook = has_codebook(bits) ? kBooks[bits - 2] : nullptr;
    }

    alignas(16) static constexpr int8_t kBooks[3][16] = {
        {-25, -8, 8, 25, -25, -8, 8, 25, -25, -8, 8, 25, -25, -8, 8, 25},
        {-32, -20, -11, -4, 4, 11, 20, 31, -32, -20, -11, -4, 4, 11, 20, 31},
        {-32, -26, -21, -16, -12, -9, -6, -3, 0, 3, 6, 9, 13, 17, 22, 28}};
    bool by_columns_;
    std::vector<std::vector<uint8_t>> bytes_;
    std::vector<WeightPanel> panels_;
};

void multiply_reference(const Weight& weight, Codes& a, std::vector<float>& y, int64_t y_stride) {
    for (const WeightPanel& own : weight.panels) {
        const auto matmul = own.bits == 2   ? matmul_q2_reference
                            : own.bits == 3 ? matmul_q3_reference
                            : own.bits == 4 ? matmul_q4_reference
                            : own.bits == 6 ? matmul_q6_reference
                                            : matmul_q8_reference;
        matmul(own.panel, a.view(), own.column_begin, a.n, 0, panel_tiles(own.panel), y.data() + own.row_begin, y_stride,
               own.column_begin > 0);
    }
}

class SelfTest {
public:
    explicit SelfTest(Device& device) : device_(device) {}

    void run() {
        if (is_tested(Kernel::embed)) embed();
        if (is_tested(Kernel::matvec)) multiply(1);
        if (is_tested(Kernel::matmul)) multiply(21);
        for (const bool has_post_norm : {false, true}) {
            if (is_tested(Kernel::normalize)) normalize(has_post_norm);
        }
        if (is_tested(Kernel::add_bias)) add_bias();
        for (const int kind : {0, 1, 2}) {
            if (is_tested(Kernel::activate)) activate(kind);
        }
        if (is_tested(Kernel::merge)) merge();
        for (const int bits : {8, 16}) {
            for (const bool normed : {false, true}) {
                if (is_tested(Kernel::store)) store(bits, normed);
            }
            if (!is_tested(bits == 8 ? Kernel::attention_q8 : Kernel::attention_f16)) continue;
            attend(bits, 0, 0.0f);
            attend(bits, 70, 1.5f);
        }
        if (is_tested(Kernel::softcap_rows)) softcap();
        if (is_tested(Kernel::choose)) choose();
        if (is_tested(Kernel::steps)) find_steps();
        if (is_tested(Kernel::conv)) convolve();
        if (is_tested(Kernel::scan)) scan();
        if (is_tested(Kernel::gate)) gate();
    }

private:
    static bool is_tested([[maybe_unused]] Kernel kernel) {
#ifdef EDGE_FAULTS
        return faulty_kernel().empty() || faulty_kernel() == kKernelNames[static_cast<size_t>(kernel)];
#else
        return true;
#endif
    }

    template <typename T>
    Buffer send(const std::vector<T>& values) const {
        Buffer buffer(device_, values.size() * sizeof(T));
        buffer.write(0, values.data(), values.size() * sizeof(T));
        return buffer;
    }

    template <typename T>
    std::vector<T> receive(const Buffer& buffer, int64_t n) const {
        std::vector<T> values(as_size(n));
        buffer.read(0, values.data(), values.size() * sizeof(T));
        return values;
    }

    [[noreturn]] void fail(Kernel kernel, const std::string& what) const {
        throw Error{EDGE_NO_DEVICE, std::string(backend_name(device_.info().backend)) + " on " + device_.info().name + " (" +
                                        device_.info().driver + ") failed the self-test: " + kKernelNames[static_cast<size_t>(kernel)] +
                                        " gives " + what + "\nhint: use backend `cpu`, or another driver"};
    }

    void compare(Kernel kernel, const std::vector<float>& found, const std::vector<float>& expected, float tolerance) const {
        float largest = 0;
        for (const float value : expected) largest = std::max(largest, std::fabs(value));
        for (size_t i = 0; i < expected.size(); ++i) {
            if (std::fabs(found[i] - expected[i]) <= tolerance * largest) continue;
            fail(kernel, std::to_string(found[i]) + " where " + std::to_string(expected[i]) + " is right");
        }
    }

    template <typename T>
    void compare_codes(Kernel kernel, const std::vector<T>& found, const std::vector<T>& expected, int step) const {
        for (size_t i = 0; i < expected.size(); ++i) {
            if (std::abs(int{found[i]} - int{expected[i]}) <= step) continue;
            fail(kernel, "the code " + std::to_string(found[i]) + " where " + std::to_string(expected[i]) + " is right");
        }
    }

    // What a kernel quantized against what the reference makes of x.
    struct Sent {
        Buffer codes, scales;
    };
    Sent room(const Codes& like) const { return {send(like.codes), send(like.scales)}; }
    static Quantized quantized(const Sent& sent, const Codes& like) { return {sent.codes, sent.scales, like.stride, like.group_stride}; }
    void compare_quantized(Kernel kernel, const Sent& sent, Codes& expected, const std::vector<float>& x, int64_t x_stride) const {
        expected.quantize(x, x_stride);
        compare(kernel, receive<float>(sent.scales, static_cast<int64_t>(expected.scales.size())), expected.scales, kTolerance);
        compare_codes(kernel, receive<int8_t>(sent.codes, static_cast<int64_t>(expected.codes.size())), expected.codes, 1);
    }

    void embed() {
        const std::vector<int32_t> tokens = {0, 37, 31, 15, 63, 16, 48};
        const RandomWeight table(numbers_, 4 * kTileRows, kColumns, {3, 4, 6, 8}, false);
        Upload upload(device_);
        Product product;
        const Buffer weights = upload.weights({{&product, {{&table.weight, 0}}}});
        product.weights = &weights;
        const Tables tables = upload.finish();
        const Buffer to(device_, tokens.size() * kColumns * 4);
        Operations(device_, tables).embed(product, send(tokens), static_cast<int>(tokens.size()), 1.5f, to, kColumns);
        std::vector<float> expected(tokens.size() * kColumns);
        for (size_t t = 0; t < tokens.size(); ++t) {
            const WeightPanel& rows = table.weight.panels[as_size(tokens[t] / kTileRows)];
            embed_row_reference(rows.panel, rows.bits, tokens[t] % kTileRows, 1.5f, expected.data() + t * kColumns);
        }
        compare(Kernel::embed, receive<float>(to, static_cast<int64_t>(expected.size())), expected, kTolerance);
    }

    // Every width of bits, in panels of rows and of columns; the kernel for few tokens and the one for many.
    void multiply(int n) {
        const Kernel kernel = n == 1 ? Kernel::matvec : Kernel::matmul;
        const RandomWeight by_rows(numbers_, 5 * 24, kColumns, {2, 3, 4, 6, 8}, false);
        const RandomWeight by_columns(numbers_, 40, 5 * 64, {8, 6, 4, 3, 2}, true);
        for (const Weight* weight : {&by_rows.weight, &by_columns.weight}) {
            Codes a(n, weight->columns, kGroupColumns);
            a.quantize(numbers_.reals(int64_t{n} * weight->columns), weight->columns);
            const Sent sent = room(a);
            Upload upload(device_);
            Product product;
            const Buffer weights = upload.weights({{&product, {{weight, 0}}}});
            product.weights = &weights;
            const Tables tables = upload.finish();
            std::vector<float> expected(as_size(n * weight->rows));
            const Buffer to(device_, expected.size() * 4);
            Operations(device_, tables).multiply(product, quantized(sent, a), n, to, static_cast<int32_t>(weight->rows));
            multiply_reference(*weight, a, expected, weight->rows);
            compare(kernel, receive<float>(to, static_cast<int64_t>(expected.size())), expected, kTolerance);
        }
    }

    // x += y + bias, normed where `normed`.
    void add_pending(std::vector<float>& x, std::vector<float> y, const float* bias, const float* post_norm) const {
        for (size_t row = 0; row < x.size(); row += kColumns) {
            for (size_t c = 0; c < kColumns; ++c) y[row + c] += bias[c];
            if (post_norm) rms_norm_reference(y.data() + row, post_norm, kEps, kColumns, y.data() + row);
            for (size_t c = 0; c < kColumns; ++c) x[row + c] += y[row + c];
        }
    }

    void normalize(bool has_post_norm) {
        constexpr int kTokens = 3;
        std::vector<float> x = numbers_.reals(kTokens * kColumns), y = numbers_.reals(kTokens * kColumns);
        const std::vector<float> gain = numbers_.reals(kColumns), bias = numbers_.reals(kColumns), post = numbers_.reals(kColumns);
        Upload upload(device_);
        const int32_t gain_at = upload.vector(gain.data(), kColumns), bias_at = upload.vector(bias.data(), kColumns);
        const int32_t post_at = upload.vector(has_post_norm ? post.data() : nullptr, kColumns);
        const Tables tables = upload.finish();
        const Buffer x_sent = send(x), y_sent = send(y);
        Codes expected(kTokens, kColumns, kGroupColumns);
        const Sent sent = room(expected);
        Operations(device_, tables)
            .normalize(x_sent, y_sent, {true, bias_at, post_at}, gain_at, true, kEps, kColumns, kGroupColumns, 0, kTokens,
                       quantized(sent, expected));
        add_pending(x, y, bias.data(), has_post_norm ? post.data() : nullptr);
        compare(Kernel::normalize, receive<float>(x_sent, kTokens * kColumns), x, kTolerance);
        for (size_t row = 0; row < x.size(); row += kColumns) {
            rms_norm_reference(x.data() + row, gain.data(), kEps, kColumns, x.data() + row);
        }
        compare(Kernel::normalize, receive<float>(y_sent, kTokens * kColumns), x, kTolerance);
        compare_quantized(Kernel::normalize, sent, expected, x, kColumns);
    }

    void add_bias() {
        constexpr int kTokens = 2;
        std::vector<float> x = numbers_.reals(kTokens * kColumns), y = numbers_.reals(kTokens * kColumns);
        const std::vector<float> bias = numbers_.reals(kColumns), own = numbers_.reals(kColumns);
        Upload upload(device_);
        const int32_t bias_at = upload.vector(bias.data(), kColumns), own_at = upload.vector(own.data(), kColumns);
        const Tables tables = upload.finish();
        const Buffer x_sent = send(x), y_sent = send(y);
        Operations(device_, tables).add_bias(x_sent, y_sent, {true, bias_at, -1}, own_at, kEps, kColumns, kTokens);
        add_pending(x, y, bias.data(), nullptr);
        for (size_t i = 0; i < x.size(); ++i) x[i] += own[i % kColumns];
        compare(Kernel::add_bias, receive<float>(x_sent, kTokens * kColumns), x, kTolerance);
    }

    void activate(int32_t kind) {
        constexpr int kTokens = 3;
        const int32_t stride = 2 * kColumns + 8;
        const std::vector<float> rows = numbers_.reals(int64_t{kTokens} * stride, -6.0f, 6.0f), bias = numbers_.reals(2 * kColumns);
        Upload upload(device_);
        const int32_t gate_at = upload.vector(bias.data(), kColumns), up_at = upload.vector(bias.data() + kColumns, kColumns);
        const Tables tables = upload.finish();
        Codes expected(kTokens, kColumns, kGroupColumns);
        const Sent sent = room(expected);
        Operations(device_, tables)
            .activate(send(rows), stride, gate_at, up_at, kind, kColumns, kGroupColumns, kTokens, quantized(sent, expected));
        std::vector<float> x(as_size(kTokens * kColumns));
        for (size_t t = 0; t < kTokens; ++t) {
            const float* row = rows.data() + t * as_size(stride);
            float* out = x.data() + t * kColumns;
            std::vector<float> up(row + (kind == 2 ? 0 : kColumns), row + (kind == 2 ? kColumns : 2 * kColumns));
            for (size_t c = 0; c < kColumns; ++c) out[c] = row[c] + bias[c], up[c] += bias[kColumns + c];
            if (kind == 0) silu_mul_reference(out, up.data(), kColumns);
            if (kind == 1) gelu_mul_reference(out, up.data(), kColumns);
            for (size_t c = 0; kind == 2 && c < kColumns; ++c) out[c] = up[c] > 0 ? up[c] * up[c] : 0;
        }
        compare_quantized(Kernel::activate, sent, expected, x, kColumns);
    }

    AttentionShape shape(int bits) const { return {6, 2, 24, 40, 8, 8, 192, bits, 0.2f, 0.0f, 0}; }

    void merge() {
        constexpr int kTokens = 2;
        const AttentionShape own = shape(8);
        const int32_t width = own.n_heads * own.vo;
        const std::vector<float> heads = numbers_.reals(int64_t{kTokens} * width);
        const Tables tables = Upload(device_).finish();
        Codes expected(kTokens, width, kGroupColumns);
        const Sent sent = room(expected);
        Operations(device_, tables).merge(send(heads), own, kGroupColumns, kTokens, quantized(sent, expected));
        std::vector<float> x(heads.size());
        for (size_t t = 0; t < kTokens; ++t) {
            const size_t at = t * as_size(width);
            merge_heads_reference(heads.data() + at, own.n_heads, own.vo, own.vo_quantum, x.data() + at);
        }
        compare_quantized(Kernel::merge, sent, expected, x, width);
    }

    // A cache of one block on this side.
    struct Cache {
        explicit Cache(const AttentionShape& own)
            : shape(own), element(own.kv_bits / 8), vo(own.kv_bits == 8 ? static_cast<int32_t>(padded_values(own.vo)) : own.vo),
              bytes(as_size(int64_t{own.n_kv_heads} * own.capacity * (own.kv_bits == 8 ? own.qk + vo + 4 : 2 * (own.qk + vo)))) {}
        int64_t keys_before(int64_t head) const { return head * shape.capacity; }
        uint8_t* k(int head) { return bytes.data() + keys_before(head) * shape.qk * element; }
        uint16_t* k_scales(int head) {
            return reinterpret_cast<uint16_t*>(bytes.data() + keys_before(shape.n_kv_heads) * shape.qk) + keys_before(head);
        }
        uint8_t* v(int head) {
            const int64_t scales = element == 1 ? 2 : 0;
            return bytes.data() + keys_before(shape.n_kv_heads) * (shape.qk * element + scales) + keys_before(head) * vo * element;
        }
        uint16_t* v_scales(int head) {
            return reinterpret_cast<uint16_t*>(bytes.data() + keys_before(shape.n_kv_heads) * (shape.qk + 2 + vo)) + keys_before(head);
        }
        void put(int head, int position, const float* key, const float* value) {
            if (element == 2) {
                store_f16_reference(key, shape.qk, reinterpret_cast<uint16_t*>(k(head)) + int64_t{position} * shape.qk);
                store_f16_reference(value, vo, reinterpret_cast<uint16_t*>(v(head)) + int64_t{position} * vo);
                return;
            }
            std::vector<int8_t> codes(as_size(std::max(shape.qk, shape.vo)));
            store_q8_reference(key, shape.qk, codes.data(), k_scales(head) + position);
            for (int c = 0; c < shape.qk; ++c) k(head)[key_code_index(position, c, shape.qk)] = static_cast<uint8_t>(codes[as_size(c)]);
            store_q8_reference(value, shape.vo, codes.data(), v_scales(head) + position);
            for (int c = 0; c < shape.vo; ++c) v(head)[value_code_index(position, c, shape.vo)] = static_cast<uint8_t>(codes[as_size(c)]);
        }

        AttentionShape shape;
        int64_t element;
        int32_t vo;
        std::vector<uint8_t> bytes;
    };

    // Two tokens with biases; with `normed` heads, whose axis has one quantum then.
    void store(int bits, bool normed) {
        constexpr int kTokens = 2, kPosition = 29;  // in the second half of a tile of keys
        AttentionShape own = shape(bits);
        if (normed) own.qk_quantum = own.qk;
        const int32_t n_q = own.n_heads * own.qk, n_k = own.n_kv_heads * own.qk, row = n_q + n_k + own.n_kv_heads * own.vo;
        const std::vector<float> rows = numbers_.reals(int64_t{kTokens} * row), bias = numbers_.reals(n_q + n_k);
        const std::vector<float> gain = numbers_.reals(2 * own.qk);
        const std::vector<float> inv_freq = numbers_.reals(n_k / 2, 0.0f, 1.0f);
        Upload upload(device_);
        DeviceBlock block;
        std::vector<float> frequencies;
        block.row_bias[0] = upload.vector(bias.data(), n_q);
        block.row_bias[1] = upload.vector(bias.data() + n_q, n_k);
        block.q_norm = upload.vector(normed ? gain.data() : nullptr, own.qk);
        block.k_norm = upload.vector(normed ? gain.data() + own.qk : nullptr, own.qk);
        block.first_place = upload.pairs(inv_freq.data(), n_k / 2, frequencies);
        const Tables tables = upload.finish();
        const auto n_angles = static_cast<int32_t>(frequencies.size());
        std::vector<float> angles(as_size(int64_t{kTokens} * n_angles * 2)), cosine(frequencies.size()), sine(frequencies.size());
        for (int t = 0; t < kTokens; ++t) {
            rope_angles(frequencies.data(), n_angles, kPosition + t, cosine.data(), sine.data());
            float* to = angles.data() + t * n_angles * 2;
            for (size_t i = 0; i < frequencies.size(); ++i) to[2 * i] = cosine[i], to[2 * i + 1] = sine[i];
        }
        Cache cache(own);
        const Buffer cache_sent = send(cache.bytes), queries_sent(device_, as_size(kTokens * n_q) * 4);
        Operations(device_, tables)
            .store(send(rows), row, block, own, kEps, send(angles), n_angles, queries_sent, cache_sent, kPosition, kTokens);

        const int n_queries = own.n_heads / own.n_kv_heads, half = own.qk_quantum / 2;
        std::vector<float> queries(as_size(kTokens * n_q)), key(as_size(own.qk)), value(as_size(own.vo));
        for (int t = 0; t < kTokens; ++t) {
            std::vector<float> x(rows.begin() + t * row, rows.begin() + (t + 1) * row);
            for (size_t i = 0; i < bias.size(); ++i) x[i] += bias[i];
            for (int h = 0; normed && h < own.n_heads + own.n_kv_heads; ++h) {
                float* head = x.data() + h * own.qk;
                rms_norm_reference(head, gain.data() + (h < own.n_heads ? 0 : own.qk), kEps, own.qk, head);
            }
            for (int head = 0; head < own.n_kv_heads; ++head) {
                std::vector<float> c(as_size(own.qk / 2)), s(c.size());
                for (int q = 0; q < own.qk / own.qk_quantum; ++q) {
                    const float* inverse = inv_freq.data() + (q * own.n_kv_heads + head) * half;
                    rope_angles(inverse, half, kPosition + t, c.data() + q * half, s.data() + q * half);
                }
                const int64_t stride = int64_t{own.n_heads} * own.qk_quantum, k_stride = int64_t{own.n_kv_heads} * own.qk_quantum;
                rope_reference({x.data() + head * n_queries * own.qk_quantum, c.data(), s.data(),
                                queries.data() + t * n_q + head * n_queries * own.qk, stride, n_queries, own.qk, own.qk_quantum});
                rope_reference({x.data() + n_q + head * own.qk_quantum, c.data(), s.data(), key.data(), k_stride, 1,
                                own.qk, own.qk_quantum});
                rope_reference({x.data() + n_q + n_k + head * own.vo_quantum, nullptr, nullptr, value.data(),
                                int64_t{own.n_kv_heads} * own.vo_quantum, 1, own.vo, own.vo_quantum});
                cache.put(head, kPosition + t, key.data(), value.data());
            }
        }
        compare(Kernel::store, receive<float>(queries_sent, kTokens * n_q), queries, kTolerance);
        compare_cache(receive<uint8_t>(cache_sent, static_cast<int64_t>(cache.bytes.size())), cache);
    }

    // Codes, or floats of 16 bits, that differ by one step in their last place.
    void compare_cache(std::vector<uint8_t> bytes, Cache& expected) const {
        if (expected.element == 2) {
            std::vector<uint16_t> found(bytes.size() / 2), right(bytes.size() / 2);
            std::memcpy(found.data(), bytes.data(), bytes.size());
            std::memcpy(right.data(), expected.bytes.data(), bytes.size());
            return compare_codes(Kernel::store, found, right, 1);
        }
        Cache found(expected.shape);
        found.bytes = std::move(bytes);
        for (int head = 0; head < expected.shape.n_kv_heads; ++head) {
            const auto codes = [&](uint8_t* begin, int64_t n) {
                const auto* signed_begin = reinterpret_cast<const int8_t*>(begin);
                return std::vector<int8_t>(signed_begin, signed_begin + n);
            };
            const int64_t capacity = expected.shape.capacity, n_k = capacity * expected.shape.qk, n_v = capacity * expected.vo;
            compare_codes(Kernel::store, codes(found.k(head), n_k), codes(expected.k(head), n_k), 1);
            compare_codes(Kernel::store, codes(found.v(head), n_v), codes(expected.v(head), n_v), 1);
            const auto scales = [&](uint16_t* begin) { return std::vector<uint16_t>(begin, begin + capacity); };
            compare_codes(Kernel::store, scales(found.k_scales(head)), scales(expected.k_scales(head)), 1);
            compare_codes(Kernel::store, scales(found.v_scales(head)), scales(expected.v_scales(head)), 1);
        }
    }

    // Three tokens behind 90 keys: two blocks, the second one not full.
    void attend(int bits, int32_t window, float cap) {
        constexpr int kTokens = 3, kPosition = 90;
        AttentionShape own = shape(bits);
        own.window = window;
        own.softcap = cap;
        Cache cache(own);
        for (int head = 0; head < own.n_kv_heads; ++head) {
            for (int j = 0; j < kPosition + kTokens; ++j) {
                const std::vector<float> key = numbers_.reals(own.qk), value = numbers_.reals(own.vo);
                cache.put(head, j, key.data(), value.data());
            }
        }
        const std::vector<float> queries = numbers_.reals(int64_t{kTokens} * own.n_heads * own.qk);
        std::vector<float> expected(as_size(int64_t{kTokens} * own.n_heads * own.vo));
        const Tables tables = Upload(device_).finish();
        const Buffer out(device_, expected.size() * 4), scores(device_, as_size(int64_t{2} * own.n_heads * own.capacity) * 4);
        Operations(device_, tables).attend(send(queries), own, send(cache.bytes), kPosition, out, kTokens, scores, 2);

        const int n_queries = own.n_heads / own.n_kv_heads;
        std::vector<float> work(as_size(attention_q8_work(n_queries * kTokens, own.qk, own.vo) +
                                        attention_f16_work(n_queries, kPosition + kTokens)) + 16);
        for (int head = 0; head < own.n_kv_heads; ++head) {
            AttentionArgs args{};
            args.q = queries.data() + head * n_queries * own.qk;
            args.out = expected.data() + head * n_queries * own.vo;
            args.k = cache.k(head);
            args.v = cache.v(head);
            args.k_scales = cache.k_scales(head);
            args.v_scales = cache.v_scales(head);
            args.work = work.data();
            args.q_stride = int64_t{own.n_heads} * own.qk;
            args.out_stride = int64_t{own.n_heads} * own.vo;
            args.softmax_scale = own.softmax_scale;
            args.n_tokens = kTokens;
            args.n_queries = n_queries;
            args.n_keys = kPosition + 1;
            args.qk = own.qk;
            args.vo = own.vo;
            args.window = own.window;
            args.softcap = own.softcap;
            bits == 8 ? attention_q8_reference(args) : attention_f16_reference(args);
        }
        compare(bits == 8 ? Kernel::attention_q8 : Kernel::attention_f16,
                receive<float>(out, static_cast<int64_t>(expected.size())), expected, kAttentionTolerance);
    }

    void softcap() {
        std::vector<float> x = numbers_.reals(100, -9.0f, 9.0f);
        const Buffer sent = send(x);
        Operations(device_, Upload(device_).finish()).softcap(sent, 3.0f, 100);
        softcap_reference(x.data(), 3.0f, 100);
        compare(Kernel::softcap_rows, receive<float>(sent, 100), x, kTolerance);
    }

    // The largest stands twice, in two work groups: the lower token comes first. One list has several of the likeliest.
    void choose() {
        constexpr int kLogits = 9000;
        std::vector<float> logits = numbers_.reals(kLogits);
        logits[4321] = logits[8321] = 3.0f;
        for (const int i : {5, 6, 4101, 4102}) logits[as_size(i)] = 2.5f;
        logits[17] = NAN;
        std::vector<int32_t> ids(kLogits);
        std::iota(ids.begin(), ids.end(), 0);
        const auto value = [&](int32_t id) { return std::isnan(logits[as_size(id)]) ? -INFINITY : logits[as_size(id)]; };
        std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return value(a) > value(b); });
        const Buffer best(device_, as_size(kChoices + 1) * kMostLikely * sizeof(LikelyToken));
        for (const int32_t n_best : {1, 7, kMostLikely}) {
            const uint64_t at = Operations(device_, Upload(device_).finish()).choose(send(logits), kLogits, n_best, best);
            std::vector<LikelyToken> found(as_size(n_best));
            best.read(at, found.data(), found.size() * sizeof(LikelyToken));
            for (size_t i = 0; i < found.size(); ++i) {
                if (found[i].id == ids[i] && found[i].logit == value(ids[i])) continue;
                fail(Kernel::choose, "token " + std::to_string(found[i].id) + " where " + std::to_string(ids[i]) + " is right");
            }
        }
    }

    static SsmBlock mixer() {
        SsmBlock ssm;
        ssm.n_heads = 6;
        ssm.n_groups = ssm.norm_groups = 2;
        ssm.state = 16;
        ssm.head = 24;
        ssm.conv_kernel = 4;
        ssm.step_least = 0.01f;
        ssm.step_most = 4.0f;
        ssm.norm_eps = kEps;
        return ssm;
    }

    void find_steps() {
        constexpr int kTokens = 2;
        const SsmBlock ssm = mixer();
        const int n_heads = ssm.n_heads;
        const std::vector<float> x = numbers_.reals(kTokens * kColumns), bias = numbers_.reals(n_heads, -4.0f, 1.0f);
        const std::vector<float> a = numbers_.reals(n_heads, -7.0f, -0.3f);
        std::vector<uint16_t> dt(as_size(n_heads * kColumns));
        std::vector<float> widened(dt.size());
        for (size_t i = 0; i < dt.size(); ++i) dt[i] = f32_to_f16(numbers_.real(-0.3f, 0.3f)), widened[i] = f16_to_f32(dt[i]);
        Upload upload(device_);
        DeviceBlock block;
        block.dt = upload.vector(widened.data(), static_cast<int64_t>(widened.size()));
        block.dt_bias = upload.vector(bias.data(), n_heads);
        block.a = upload.vector(a.data(), n_heads);
        const Tables tables = upload.finish();
        const Buffer to(device_, as_size(kTokens * 2 * n_heads) * 4);
        Operations(device_, tables).find_steps(send(x), kColumns, block, ssm, kTokens, to);
        std::vector<float> expected(as_size(kTokens * 2 * n_heads));
        for (int t = 0; t < kTokens; ++t) {
            float* step = expected.data() + t * 2 * n_heads;
            dot_f16_reference(dt.data(), x.data() + t * kColumns, n_heads, kColumns, step);
            ssm_step_reference(step, bias.data(), a.data(), ssm.step_least, ssm.step_most, n_heads, step + n_heads);
        }
        compare(Kernel::steps, receive<float>(to, static_cast<int64_t>(expected.size())), expected, kTolerance);
    }

    // Tokens whose convolutions reach back before the first of them, and what is remembered of them.
    void convolve() {
        constexpr int kTokens = 5;
        const SsmBlock ssm = mixer();
        const int n_x = static_cast<int>(ssm.rows()), n_states = static_cast<int>(ssm.states()), n_taps = ssm.conv_kernel + 1;
        const int sizes[] = {n_x, n_states, n_states}, mixed = n_x + 2 * n_states, stride = n_x + mixed;
        const std::vector<float> rows = numbers_.reals(int64_t{kTokens} * stride), bias = numbers_.reals(mixed);
        const std::vector<float> taps = numbers_.reals(int64_t{n_taps} * mixed);
        std::vector<float> past = numbers_.reals(int64_t{n_taps - 2} * mixed), expected(as_size(kTokens * mixed));
        Upload upload(device_);
        DeviceBlock block;
        for (int i = 0, at = 0; i < 3; at += sizes[i++]) {
            block.row_bias[i + 1] = upload.vector(bias.data() + at, sizes[i]);
            block.conv[i] = upload.vector(taps.data() + at * n_taps, int64_t{sizes[i]} * n_taps);
        }
        const Tables tables = upload.finish();
        const Buffer state = send(past), to(device_, expected.size() * 4);
        Operations(device_, tables).convolve(send(rows), stride, block, ssm, state, kTokens, to, mixed);
        std::vector<float> x = rows;
        for (size_t i = 0; i < x.size(); ++i) {
            const size_t column = i % as_size(stride);
            if (column >= as_size(n_x)) x[i] += bias[column - as_size(n_x)];
        }
        for (int i = 0, at = 0; i < 3; at += sizes[i++]) {
            const int n_heads = i ? ssm.n_groups : ssm.n_heads, dims = i ? ssm.state : ssm.head;
            conv_silu_reference({x.data() + n_x + at, taps.data() + at * n_taps, past.data() + at * (n_taps - 2),
                                 expected.data() + at, stride,
                                 mixed, kTokens, ssm.conv_kernel, n_heads, dims, 8, 0, n_heads * dims / 8});
        }
        compare(Kernel::conv, receive<float>(to, static_cast<int64_t>(expected.size())), expected, kTolerance);
        compare(Kernel::conv, receive<float>(state, static_cast<int64_t>(past.size())), past, kTolerance);
    }

    void scan() {
        constexpr int kTokens = 3;
        const SsmBlock ssm = mixer();
        const int n_x = static_cast<int>(ssm.rows()), mixed = n_x + 2 * static_cast<int>(ssm.states()), n_heads = ssm.n_heads;
        const std::vector<float> rows = numbers_.reals(int64_t{kTokens} * mixed);
        const std::vector<float> steps = numbers_.reals(int64_t{kTokens} * 2 * n_heads, 0.0f, 1.0f);
        const std::vector<float> skip = numbers_.reals(n_heads);
        const int64_t first_state = int64_t{ssm.conv_kernel - 1} * mixed, head_states = int64_t{ssm.state} * ssm.head;
        std::vector<float> state = numbers_.reals(first_state + n_heads * head_states), expected(as_size(kTokens * n_x));
        Upload upload(device_);
        DeviceBlock block;
        block.d = upload.vector(skip.data(), n_heads);
        const Tables tables = upload.finish();
        const Buffer state_sent = send(state), to(device_, expected.size() * 4);
        Operations(device_, tables).scan(send(rows), mixed, send(steps), block, ssm, state_sent, kTokens, to);
        for (int h = 0; h < n_heads; ++h) {
            const float* b = rows.data() + n_x + h / (n_heads / ssm.n_groups) * ssm.state;
            ssm_scan_reference({rows.data() + h * ssm.head, b, b + ssm.states(), steps.data() + h, steps.data() + n_heads + h,
                                state.data() + first_state + h * head_states, expected.data() + h * ssm.head,
                                mixed, mixed, 2 * n_heads, n_x,
                                skip[as_size(h)], kTokens, ssm.state, ssm.head});
        }
        compare(Kernel::scan, receive<float>(to, static_cast<int64_t>(expected.size())), expected, kTolerance);
        compare(Kernel::scan, receive<float>(state_sent, static_cast<int64_t>(state.size())), state, kTolerance);
    }

    void gate() {
        constexpr int kTokens = 2;
        const SsmBlock ssm = mixer();
        const int n_x = static_cast<int>(ssm.rows()), width = n_x / ssm.norm_groups;
        const std::vector<float> rows = numbers_.reals(int64_t{kTokens} * n_x), bias = numbers_.reals(n_x), gain = numbers_.reals(n_x);
        std::vector<float> y = numbers_.reals(int64_t{kTokens} * n_x);
        Upload upload(device_);
        DeviceBlock block;
        block.row_bias[0] = upload.vector(bias.data(), n_x);
        block.gain = upload.vector(gain.data(), n_x);
        const Tables tables = upload.finish();
        const Buffer y_sent = send(y);
        Operations(device_, tables).gate(send(rows), n_x, block, ssm, kTokens, y_sent);
        for (int t = 0; t < kTokens; ++t) {
            std::vector<float> z(rows.begin() + t * n_x, rows.begin() + (t + 1) * n_x), gated(z.size());
            for (size_t i = 0; i < z.size(); ++i) z[i] += bias[i];
            rope_reference({z.data(), nullptr, nullptr, gated.data(), int64_t{ssm.n_heads} * 8, ssm.n_heads, ssm.head, 8});
            silu_mul_reference(gated.data(), y.data() + t * n_x, n_x);
            for (int at = 0; at < n_x; at += width) rms_norm_reference(gated.data() + at, gain.data() + at, kEps, width, gated.data() + at);
            std::copy(gated.begin(), gated.end(), y.begin() + t * n_x);
        }
        compare(Kernel::gate, receive<float>(y_sent, static_cast<int64_t>(y.size())), y, kTolerance);
    }

    Device& device_;
    Numbers numbers_;
};

}  // namespace

void require_self_test(Device& device) {
    if (has_passed(device.program_key())) return;
    SelfTest(device).run();
    write_passed(device.program_key());
}

}  // namespace gpu
}  // namespace edge
