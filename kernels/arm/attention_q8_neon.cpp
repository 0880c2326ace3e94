#include "kernels/arm/lanes_neon.h"
#include "kernels/arm/matmul_neon.h"
#include "kernels/lanes/attention_q8.h"

namespace edge {
namespace {

// Key products as in matmul_neon.h. Weights and values + 128 are unsigned: their products of 16 bits are added in pairs, and
// the sums start at -128 * sum(p).
struct NeonDots {
    template <int kRows>
    static void keys(const Queries& queries, int first_row, const int8_t* k, int qk, int n_tiles, int32_t* out) {
        for (int i = 0; i < n_tiles; ++i, k += 16 * qk) {
            for (int part = 0; part < 4; ++part) {
                FourRows sums[kRows];
                for (int c = 0; c < qk; c += 8) {
                    const int8x16_t low = vld1q_s8(k + 16 * c + 16 * part), high = vld1q_s8(k + 16 * c + 64 + 16 * part);
                    for (int r = 0; r < kRows; ++r) {
                        sums[r].add(low, high, EightColumns(queries.codes + (first_row + r) * queries.stride + c));
                    }
                }
                for (int r = 0; r < kRows; ++r) vst1q_s32(out + r * kKeyBlock + 16 * i + 4 * part, sums[r].total());
            }
        }
    }

    template <int kRows>
    static void values(const uint8_t* p, const int8_t* v, int64_t padded_vo, int n_columns, int n_keys, int32_t* out) {
        int32_t start[kRows];
        for (int r = 0; r < kRows; ++r) {
            int32_t total = 0;
            for (int j = 0; j < n_keys; j += 4) {
                for (int i = j; i < j + 4; ++i) total += p[r * kKeyBlock + i];
            }
            start[r] = -128 * total;
        }
        for (int c = 0; c < n_columns; c += 4) {
            uint32x4_t first[kRows], second[kRows];  // columns c, c + 1 and c + 2, c + 3 as two halves each
            for (int r = 0; r < kRows; ++r) first[r] = second[r] = vdupq_n_u32(0);
            const int8_t* four_keys = v + 4 * c;
            for (int j = 0; j < n_keys; j += 4, four_keys += 4 * padded_vo) {
                const uint8x16_t value = veorq_u8(vreinterpretq_u8_s8(vld1q_s8(four_keys)), vdupq_n_u8(128));
                for (int r = 0; r < kRows; ++r) {
                    const uint8x8_t weight = four(p + r * kKeyBlock + j);
                    first[r] = vpadalq_u16(first[r], vmull_u8(vget_low_u8(value), weight));
                    second[r] = vpadalq_u16(second[r], vmull_u8(vget_high_u8(value), weight));
                }
            }
            for (int r = 0; r < kRows; ++r) {
                const int32x4_t total = vreinterpretq_s32_u32(vpaddq_u32(first[r], second[r]));
                vst1q_s32(out + 64 * r + c, vaddq_s32(total, vdupq_n_s32(start[r])));
            }
        }
    }

    static uint8x8_t four(const uint8_t* p) {
        uint32_t word;
        __builtin_memcpy(&word, p, 4);
        return vreinterpret_u8_u32(vdup_n_u32(word));
    }
};

}  // namespace

attention_q8_t attention_q8_neon;

void attention_q8_neon(const AttentionArgs& args) { attend_q8<NeonDots>(args); }

}  // namespace edge
