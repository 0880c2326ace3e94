#include "kernels/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace edge {
namespace {

struct IsaEntry {
    Isa isa;
    const char* name;
    IsaSet implies;  // directly or not, itself left out
};

constexpr IsaSet kReference = isa_bit(Isa::reference);
constexpr IsaEntry kIsas[kIsaCount] = {  // ordered as the enum; later is better within one architecture
    {Isa::reference, "reference", 0},
    {Isa::avx2, "avx2", kReference},
    {Isa::avxvnni, "avxvnni", kReference | isa_bit(Isa::avx2)},
    {Isa::avx512vnni, "avx512vnni", kReference | isa_bit(Isa::avx2)},
    {Isa::neon, "neon", kReference},
    {Isa::dotprod, "dotprod", kReference | isa_bit(Isa::neon)},
    {Isa::i8mm, "i8mm", kReference | isa_bit(Isa::neon) | isa_bit(Isa::dotprod)},
};

const IsaEntry& entry(Isa isa) { return kIsas[static_cast<int>(isa)]; }

#if defined(__x86_64__)
struct Cpuid {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    Cpuid(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx); }
};

bool bit(unsigned word, int index) { return (word >> index & 1u) != 0; }

// The register states that the operating system saves: bits of XCR0. Without them the instructions fault.
uint64_t saved_states() {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
}

IsaSet detect() {
    IsaSet found = kReference;
    const Cpuid basic(1, 0), extended(7, 0), extended_1(7, 1);
    const bool has_xgetbv = bit(basic.ecx, 27);
    const bool has_f16c_fma_avx = bit(basic.ecx, 29) && bit(basic.ecx, 12) && bit(basic.ecx, 28);
    if (!has_xgetbv || !has_f16c_fma_avx || !bit(extended.ebx, 5)) return found;
    const uint64_t states = saved_states();
    if ((states & 0x6u) != 0x6u) return found;  // xmm, ymm
    found |= isa_bit(Isa::avx2);
    if (bit(extended_1.eax, 4)) found |= isa_bit(Isa::avxvnni);
    const bool has_f_dq_bw_vl =
        bit(extended.ebx, 16) && bit(extended.ebx, 17) && bit(extended.ebx, 30) && bit(extended.ebx, 31);
    const bool has_vnni = bit(extended.ecx, 11);
    if (has_f_dq_bw_vl && has_vnni && (states & 0xe0u) == 0xe0u) found |= isa_bit(Isa::avx512vnni);  // opmask, zmm
    return found;
}
#elif defined(__aarch64__)
IsaSet detect() {
    constexpr unsigned long kHwcapDotprod = 1ul << 20;  // HWCAP_ASIMDDP of the Linux ABI
    constexpr unsigned long kHwcap2I8mm = 1ul << 13;    // HWCAP2_I8MM
    IsaSet found = kReference | isa_bit(Isa::neon);
    if ((getauxval(AT_HWCAP) & kHwcapDotprod) == 0) return found;
    found |= isa_bit(Isa::dotprod);
    if ((getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0) found |= isa_bit(Isa::i8mm);
    return found;
}
#else
IsaSet detect() { return kReference; }
#endif

}  // namespace

const char* isa_text(Isa isa) { return entry(isa).name; }

bool find_isa(std::string_view name, Isa* isa) {
    for (const IsaEntry& candidate : kIsas) {
        if (name != candidate.name) continue;
        *isa = candidate.isa;
        return true;
    }
    return false;
}

IsaSet isa_closure(Isa isa) { return entry(isa).implies | isa_bit(isa); }

IsaSet supported_isas() {
    static const IsaSet found = detect();
    return found;
}

Isa best_isa(IsaSet set) {
    for (int i = kIsaCount - 1; i > 0; --i) {
        if (set & isa_bit(kIsas[i].isa)) return kIsas[i].isa;
    }
    return Isa::reference;
}

}  // namespace edge
