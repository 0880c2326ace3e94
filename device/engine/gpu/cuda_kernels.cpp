#include "cuda_kernels.h"

#ifdef EDGE_FATBIN
// The file's bytes, put here by the assembler.
__asm__(
    ".pushsection .rodata.edge_fatbin,\"a\"\n"
    ".balign 64\n"
    ".hidden edge_fatbin_begin\n.globl edge_fatbin_begin\nedge_fatbin_begin:\n"
    ".incbin \"" EDGE_FATBIN "\"\n"
    ".hidden edge_fatbin_end\n.globl edge_fatbin_end\nedge_fatbin_end:\n"
    ".popsection\n");

extern "C" const unsigned char edge_fatbin_begin[], edge_fatbin_end[];

namespace edge::gpu {
std::span<const unsigned char> cuda_kernels() { return {edge_fatbin_begin, edge_fatbin_end}; }
}  // namespace edge::gpu
#else
namespace edge::gpu {
std::span<const unsigned char> cuda_kernels() { return {}; }
}  // namespace edge::gpu
#endif
