// Instruction sets: their names, what each implies, and what this machine has.
#pragma once
#include <cstdint>
#include <string_view>

namespace edge {

enum class Isa : uint8_t {
    reference,   // plain C++, everywhere
    avx2,        // with FMA and F16C
    avxvnni,     // 256-bit vpdpbusd
    avx512vnni,  // F, BW, VL, DQ and 512-bit vpdpbusd
    neon,
    dotprod,     // sdot
    i8mm,        // smmla, with dotprod
};
inline constexpr int kIsaCount = 7;

using IsaSet = uint32_t;  // bit i: the Isa with value i
constexpr IsaSet isa_bit(Isa isa) { return IsaSet{1} << static_cast<int>(isa); }

const char* isa_text(Isa isa);

// False when no set is called so. Names of other architectures are known too; supported_isas() tells them apart.
bool find_isa(std::string_view name, Isa* isa);

// The set itself and the lower ones that its kernels may be mixed with; always holds `reference`.
IsaSet isa_closure(Isa isa);

// What this machine and its operating system can run; found once.
IsaSet supported_isas();

// The most capable of a set.
Isa best_isa(IsaSet set);

}  // namespace edge
