// SHA-256 with the Armv8 SHA2 instructions. Compiled with +sha2; only intrinsics and static helpers here.
#include "sha256.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_SHA2)
#include <arm_neon.h>
#include <sys/auxv.h>

namespace edge {
namespace {

constexpr unsigned long kHwcapSha2 = 1ul << 6;

inline void four_rounds(uint32x4_t& abcd, uint32x4_t& efgh, uint32x4_t w, int i) {
    const uint32x4_t x = vaddq_u32(w, vld1q_u32(kSha256Constants + 4 * i));
    const uint32x4_t before = abcd;
    abcd = vsha256hq_u32(abcd, efgh, x);
    efgh = vsha256h2q_u32(efgh, before, x);
}

void blocks_sha2(uint32_t state[8], const uint8_t* data, size_t n_blocks) {
    uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);
    for (; n_blocks > 0; --n_blocks, data += 64) {
        const uint32x4_t abcd_before = abcd, efgh_before = efgh;
        uint32x4_t w[4];
        for (int i = 0; i < 4; ++i) {
            w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
            four_rounds(abcd, efgh, w[i], i);
        }
        for (int i = 4; i < 16; ++i) {
            const uint32x4_t next = vsha256su1q_u32(vsha256su0q_u32(w[0], w[1]), w[2], w[3]);
            w[0] = w[1], w[1] = w[2], w[2] = w[3], w[3] = next;
            four_rounds(abcd, efgh, next, i);
        }
        abcd = vaddq_u32(abcd, abcd_before);
        efgh = vaddq_u32(efgh, efgh_before);
    }
    vst1q_u32(state, abcd);
    vst1q_u32(state + 4, efgh);
}

}  // namespace

Sha256::Blocks* sha256_arm() { return getauxval(AT_HWCAP) & kHwcapSha2 ? blocks_sha2 : nullptr; }

}  // namespace edge
#else
namespace edge {
Sha256::Blocks* sha256_arm() { return nullptr; }
}  // namespace edge
#endif
