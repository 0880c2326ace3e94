#include "kernels/arm/lanes_neon.h"

#include "kernels/lanes/attention_q8.h"

namespace edge {
namespace {

// udot has no signed factor: values enter as value + 128, and the sums start at -128 * sum(p). A register is 4 keys (or
// columns) x 4 elements.
struct DotprodDots {
    template <int kRows>
    static void key_tile(const Queries& queries, int first_row, const int8_t* k, int qk, int32_t* out) {
        const int8_t* q = queries.codes + first_row * queries.stride;
        int32x4_t sums[kRows][4];
        for (int r = 0; r < kRows; ++r) {
            for (int part = 0; part < 4; ++part) sums[r][part] = vdupq_n_s32(0);
        }
        for (int c = 0; c < qk; c += 8) {
            int8x8_t a[kRows];
            for (int r = 0; r < kRows; ++r) a[r] = vld1_s8(q + r * queries.stride + c);
            for (int part = 0; part < 4; ++part) {
                const int8x16_t low = vld1q_s8(k + 16 * c + 16 * part), high = vld1q_s8(k + 16 * c + 64 + 16 * part);
                for (int r = 0; r < kRows; ++r) {
                    sums[r][part] = vdotq_lane_s32(vdotq_lane_s32(sums[r][part], low, a[r], 0), high, a[r], 1);
                }
            }
        }
        for (int r = 0; r < kRows; ++r) {
            for (int part = 0; part < 4; ++part) vst1q_s32(out + r * kKeyBlock + 4 * part, sums[r][part]);
        }
    }

    template <int kRows>
    static void keys(const Queries& queries, int first_row, const int8_t* k, int qk, int n_tiles, int32_t* out) {
        for (int i = 0; i < n_tiles; ++i) key_tile<kRows>(queries, first_row, k + 16 * i * qk, qk, out + 16 * i);
    }

    template <int kRows>
    static void values(const uint8_t* p, const int8_t* v, int64_t padded_vo, int n_columns, int n_keys, int32_t* out) {
        uint32x4_t start[kRows];
        for (int r = 0; r < kRows; ++r) {
            uint32_t total = 0;
            for (int j = 0; j < n_keys; j += 4) {
                for (int i = j; i < j + 4; ++i) total += p[r * kKeyBlock + i];
            }
            start[r] = vdupq_n_u32(0u - 128u * total);
        }
        for (int c = 0; c < n_columns; c += 16) {
            uint32x4_t sums[kRows][4];
            for (int r = 0; r < kRows; ++r) {
                for (int part = 0; part < 4; ++part) sums[r][part] = start[r];
            }
            const int8_t* four_keys = v + 4 * c;
            for (int j = 0; j < n_keys; j += 4, four_keys += 4 * padded_vo) {
                uint8x16_t weights[kRows];
                for (int r = 0; r < kRows; ++r) weights[r] = four(p + r * kKeyBlock + j);
                for (int part = 0; part < 4; ++part) {
                    const uint8x16_t value = veorq_u8(vreinterpretq_u8_s8(vld1q_s8(four_keys + 16 * part)), vdupq_n_u8(128));
                    for (int r = 0; r < kRows; ++r) sums[r][part] = vdotq_u32(sums[r][part], value, weights[r]);
                }
            }
            for (int r = 0; r < kRows; ++r) {
                for (int part = 0; part < 4; ++part) {
                    vst1q_s32(out + 64 * r + c + 4 * part, vreinterpretq_s32_u32(sums[r][part]));
                }
            }
        }
    }

    static uint8x16_t four(const uint8_t* p) {
        uint32_t word;
        __builtin_memcpy(&word, p, 4);
        return vreinterpretq_u8_u32(vdupq_n_u32(word));
    }
};

}  // namespace

attention_q8_t attention_q8_dotprod;

void attention_q8_dotprod(const AttentionArgs& args) { attend_q8<DotprodDots>(args); }

}  // namespace edge
