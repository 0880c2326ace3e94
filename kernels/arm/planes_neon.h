// Codes of 2, 3 and 6 bits in NEON registers. A plane of 2 bits is two registers, each for two parts of a unit; one of 1 bit is
// a single register for all four.
#pragma once
#include "kernels/arm/codes_neon.h"

namespace edge {
namespace {

inline uint8x16_t low_nibbles(uint8x16_t packed) { return vandq_u8(packed, vdupq_n_u8(15)); }
inline uint8x16_t high_nibbles(uint8x16_t packed) { return vshrq_n_u8(packed, 4); }

// Looks a nibble up, the 2-bit codes of positions p (low) and p + 32 (high): the value of the one that the part needs.
struct TwoBitTables {
    int8x16_t pair[2];  // for parts 0 and 1, for parts 2 and 3
    explicit TwoBitTables(const int8_t* values) {
        int8_t table[32];
        for (int i = 0; i < 32; ++i) table[i] = values[i < 16 ? i & 3 : i >> 2 & 3];
        pair[0] = vld1q_s8(table), pair[1] = vld1q_s8(table + 16);
    }
    Columns read(const uint8_t* plane, int part) const {
        const uint8x16_t packed = vld1q_u8(plane + 16 * (part & 1));
        const int8x16_t table = pair[part >> 1];
        return {vqtbl1q_s8(table, low_nibbles(packed)), vqtbl1q_s8(table, high_nibbles(packed))};
    }
};

struct CodesQ2 {
    static constexpr int kUnitBytes = 32;
    TwoBitTables tables;
    explicit CodesQ2(const Panel& w) : tables(w.codebook) {}
    Columns read(const uint8_t* unit, int part) const { return tables.read(unit, part); }
};

// A nibble holds the two low bits of a code, where the plane of 2 has them, and two of the plane of 1, of which the part's own
// is at another place in every part.
struct CodesQ3 {
    static constexpr int kUnitBytes = 48;
    int8x16_t table[4];
    explicit CodesQ3(const Panel& w) {
        for (int part = 0; part < 4; ++part) {
            int8_t values[16];
            for (int i = 0; i < 16; ++i) values[i] = w.codebook[(part < 2 ? i & 3 : i >> 2) | (i >> (part ^ 2) & 1) << 2];
            table[part] = vld1q_s8(values);
        }
    }
    Columns read(const uint8_t* unit, int part) const {
        const uint8x16_t where = vdupq_n_u8(part < 2 ? 0x33 : 0xcc);
        const uint8x16_t packed = vbslq_u8(where, vld1q_u8(unit + 16 * (part & 1)), vld1q_u8(unit + 32));
        return {vqtbl1q_s8(table[part], low_nibbles(packed)), vqtbl1q_s8(table[part], high_nibbles(packed))};
    }
};

struct CodesQ6 {
    static constexpr int kUnitBytes = 96;
    static constexpr int8_t kUpper[4] = {-32, -16, 0, 16};
    TwoBitTables tables;  // of what the upper bits stand for; its values have no lower bits
    explicit CodesQ6(const Panel&) : tables(kUpper) {}
    Columns read(const uint8_t* unit, int part) const {
        const uint8x16_t lower = vld1q_u8(unit + 16 * part);
        const Columns upper = tables.read(unit + 64, part);
        return {vorrq_s8(vreinterpretq_s8_u8(low_nibbles(lower)), upper.low),
                vorrq_s8(vreinterpretq_s8_u8(high_nibbles(lower)), upper.high)};
    }
};

}  // namespace
}  // namespace edge
