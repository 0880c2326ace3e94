// The contract of every kernel: formula, shapes, and the order of every float operation.
//
// Results are defined to the bit. Integer sums are exact; each float step below is one IEEE-754 binary32 operation
// (fma = fused), in the stated order. So every ISA, every thread count, and decode and prefill give identical bits;
// tests compare for equality with kernels/reference/, not within a tolerance. Inputs are finite; with others the results
// are unspecified, but nothing outside the arguments is read or written.
//
// The 16-lane rule for sums: lane l adds elements l, l + 16, ... in order (by fma where products are summed), a last
// incomplete row of 16 is padded with zeros, then lanes are added pairwise: (l, l + 8), (l, l + 4), (l, l + 2), (l, l + 1).
#pragma once
#include <cstdint>

namespace edge {

inline constexpr int kTileRows = 16;     // rows in one tile of a panel
inline constexpr int kUnitColumns = 8;   // columns in one unit of a tile
inline constexpr int kMaxGroup = 128;    // columns that can share a scale

// One panel of packed weights as it lies in the artifact (formats/SPEC.md section 4); nothing is copied or repacked.
struct Panel {
    const uint8_t* codes;      // (tiles, columns / 8) units of 16 * bits bytes
    const uint16_t* scales;    // (tiles, n_groups, 16) float16
    const int8_t* codebook;    // 16 values from -32 to 31, at 2 and 3 bits 4 and 8 repeated; 16-byte aligned; nullptr at 6 and 8
    int32_t rows;              // before padding to tiles
    int32_t columns;           // multiple of 8
    int32_t group;             // columns that share a scale; multiple of 8, at most kMaxGroup; the last group may be short
};
static inline int panel_tiles(const Panel& p) { return (p.rows + kTileRows - 1) / kTileRows; }
static inline int panel_groups(const Panel& p) { return (p.columns + p.group - 1) / p.group; }

// Activations quantized to int8 per token and group. Row t of `codes` begins at t * stride.
struct Activations {
    int8_t* codes;     // (n_tokens, stride), 64-byte aligned rows, within +-127
    float* scales;     // (n_tokens, group_stride)
    int32_t* sums;     // (n_tokens, group_stride): sum of the group's codes
    int32_t stride;        // >= columns, multiple of 64
    int32_t group_stride;  // >= number of groups, multiple of 16
    int32_t columns;
    int32_t group;
};

// quantize: for each token and group: m = max |x|; scale = m / 127; inverse = m >= 1e-30 ? 127 / m : 0;
// code = round-half-even(x * inverse) as int8; sum = sum of codes.   x: (n_tokens, x_stride) float
// out.columns is a multiple of 8; nothing behind them is written.
using quantize_t = void(const float* x, int64_t x_stride, int n_tokens, Activations& out);

// matmul: for each token t and each row r of tiles [tile_begin, tile_end):
//   acc = accumulate ? y[t][r] : 0
//   for each group g, ascending: acc = fma(float(sum_c value(code[r][c]) * a[t][c]), float(scale[r][g]) * a_scale[t][g], acc)
//   y[t][r] = acc
// The weight's column 0 meets activation column `a_column` (a multiple of group): column panels read a part of a row.
// w.group == a.group, and the panel ends where a group of the activations ends.
// y: (n_tokens, y_stride) float, row r of the panel at y[t * y_stride + r]; only rows < panel.rows are written.
using matmul_t = void(const Panel& w, const Activations& a, int a_column, int n_tokens, int tile_begin, int tile_end,
                      float* y, int64_t y_stride, bool accumulate);
// value(code) = codebook[code] at 2, 3 and 4 bits, code - 32 at 6 bits, the code as int8 at 8 bits.
using matmul_q2_t = matmul_t;
using matmul_q3_t = matmul_t;
using matmul_q4_t = matmul_t;
using matmul_q6_t = matmul_t;
using matmul_q8_t = matmul_t;

// attention: one key/value head, the query heads that share it, and tokens in a row; token t sees keys [0, n_keys + t).
//
// attention_q8. Each query vector is quantized as by `quantize` with one group: codes a[h], f = scale * softmax_scale.
// Keys are taken in blocks of kKeyBlock, at fixed positions, in order; with m = -3.4e38, lanes l[16] = 0, acc = 0 before:
//   s[j] = float(sum_c a[h][c] * K[j][c]) * (k_scale[j] * f) for each key j of the block that the token sees
//   m' = max(m, max_j s[j]); factor = edge_exp(m - m'); e[j] = edge_exp(s[j] - m')
//   l = l * factor, then lane j % 16 adds e[j] in order of j
//   w[j] = e[j] * v_scale[j]; most = max_j w[j]; p[j] = round-half-even(w[j] * (most >= 1e-30 ? 255 / most : 0)) as uint8
//   acc[c] = fma(float(sum_j p[j] * V[j][c]), most / 255, acc[c] * factor);   m = m'
// and out[h][c] = acc[c] * (1 / sum l), the lanes added pairwise as above.
//
// attention_f16. s[h][j] = dot(q[h], K[j]) * softmax_scale, j in [0, n_keys + t); m = max_j s; e = edge_exp(s - m);
//   out[h] = (sum_j e[j] * V[j]) * (1 / sum_j e[j])
// dot and `sum e`: the 16-lane rule. The sum over V runs in order of j: acc = fma(e[j], V[j][c], acc).
inline constexpr int kKeyBlock = 64;

// Where the 8-bit caches hold a code: keys in tiles of 16, four elements of each in turn; values by fours of keys. Both hold
// whole blocks of keys (what lies behind the last key is read but not used), and values whole 16s of elements.
static inline int64_t key_code_index(int64_t key, int64_t element, int64_t qk) {
    return key / 16 * 16 * qk + element / 4 * 64 + key % 16 * 4 + element % 4;
}
static inline int64_t padded_values(int64_t vo) { return (vo + 15) / 16 * 16; }
static inline int64_t value_code_index(int64_t key, int64_t element, int64_t vo) {
    return (key / 4 * padded_values(vo) + element) * 4 + key % 4;
}

struct AttentionArgs {
    const float* q;             // (n_tokens, n_queries, qk), tokens q_stride apart
    const void* k;              // int8: key_code_index(); float16: (keys, qk)
    const uint16_t* k_scales;   // (keys, in whole blocks) float16; unused for float16 caches
    const void* v;              // int8: value_code_index(); float16: (keys, vo)
    const uint16_t* v_scales;
    float* work;                // attention_q8_work() or attention_f16_work() floats, 64-byte aligned; overwritten
    float* out;                 // (n_tokens, n_queries, vo), tokens out_stride apart
    int64_t q_stride, out_stride;
    float softmax_scale;
    int32_t n_tokens, n_queries, n_keys, qk, vo;   // all >= 1; qk, vo: multiples of 8
};
using attention_q8_t = void(const AttentionArgs& args);
using attention_f16_t = void(const AttentionArgs& args);

// Floats of work space. Rows: n_tokens * n_queries; keys: those of the last token.
static inline int64_t attention_q8_work(int64_t n_rows, int64_t qk, int64_t vo) {
    return n_rows * ((qk + 63) / 64 * 16 + padded_values(vo) + 16) + (3 * n_rows + 15) / 16 * 16;
}
static inline int64_t attention_f16_work(int64_t n_queries, int64_t n_keys) { return n_queries * ((n_keys + 15) / 16 * 16); }

// rms_norm: sum of squares by the 16-lane rule; y = (x * (1 / sqrt(sum / n + eps))) * gain; n: multiple of 8; y may be x
using rms_norm_t = void(const float* x, const float* gain, float eps, int n, float* y);

// silu_mul: gate = (gate / (1 + edge_exp(-gate))) * up, in place in `gate`; n: multiple of 8
using silu_mul_t = void(float* gate, const float* up, int64_t n);

// edge_exp (kernels/exp.h): the same polynomial everywhere, |error| <= 2 ulp; libm differs between systems.

// rope: the heads of one kv head, from quantum-major order to head-major (head, dims), turning each pair (SPEC.md section 3):
//   (a, b) -> (a * cos - b * sin, b * cos + a * sin), each product and the sum rounded on its own.
// x: (dims / Q, n_heads, Q), `stride` floats from one quantum to the next; cosine, sine: (dims / 2).
// Both nullptr: only the order changes (values). `out` must not overlap x.
struct RopeArgs {
    const float* x;
    const float* cosine;
    const float* sine;
    float* out;
    int64_t stride;
    int32_t n_heads, dims, quantum;   // dims: a multiple of quantum, which is even where pairs turn
};
using rope_t = void(const RopeArgs& args);

// merge_heads: from head-major (head, dims) to quantum-major (quantum, head, Q); the way back, for attention outputs.
using merge_heads_t = void(const float* x, int n_heads, int dims, int quantum, float* out);

// embed_row: out[c] = (float(value(code[row][c])) * float(scale[row][c / group])) * factor for one row of a panel of `bits` bits
using embed_row_t = void(const Panel& w, int bits, int row, float factor, float* out);

// store_q8: one head vector for the cache: m = max |x|; scale = float16(min(m / 127, 65504));
// code = round-half-even(clamp(x / float(scale), -127, 127)), 0 when the scale is 0; n: multiple of 8
using store_q8_t = void(const float* x, int n, int8_t* codes, uint16_t* scale);

// store_f16: out = float16(x), round half to even
using store_f16_t = void(const float* x, int n, uint16_t* out);

// dot_peak: not part of a model: runs `rounds` rounds of independent dot products on registers only, as the matmul of the
// same ISA does them, and returns the number of multiply-accumulates done. `sink` receives a value, so that none is left out.
using dot_peak_t = int64_t(int64_t rounds, int32_t* sink);

}  // namespace edge
