// The chosen kernels: one table of function pointers, filled from kernels.inc.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "kernels/isa.h"
#include "kernels/ops.h"

namespace edge {

struct Ops {
    matmul_q2_t* matmul_q2 = nullptr;
    matmul_q3_t* matmul_q3 = nullptr;
    matmul_q4_t* matmul_q4 = nullptr;
    matmul_q6_t* matmul_q6 = nullptr;
    matmul_q8_t* matmul_q8 = nullptr;
    quantize_t* quantize = nullptr;
    attention_q8_t* attention_q8 = nullptr;
    attention_f16_t* attention_f16 = nullptr;
    rms_norm_t* rms_norm = nullptr;
    silu_mul_t* silu_mul = nullptr;
    gelu_mul_t* gelu_mul = nullptr;
    softcap_t* softcap = nullptr;
    rope_t* rope = nullptr;
    merge_heads_t* merge_heads = nullptr;
    embed_row_t* embed_row = nullptr;
    store_q8_t* store_q8 = nullptr;
    store_f16_t* store_f16 = nullptr;
    dot_f16_t* dot_f16 = nullptr;
    conv_silu_t* conv_silu = nullptr;
    ssm_step_t* ssm_step = nullptr;
    ssm_scan_t* ssm_scan = nullptr;
    dot_peak_t* dot_peak = nullptr;
};

// The kernels in use: the best that this machine runs, until select_isa() narrows them. Safe from any thread.
const Ops& ops();

// Narrows ops() to `name` and the sets that it implies; the empty name means the best of this machine.
// Returns false, and leaves the choice alone, when the name is unknown or the machine lacks it; `error` (may be nullptr) then
// says what was asked for and what there is. Call it before sessions run: tables taken earlier stay as they were.
bool select_isa(std::string_view name, std::string* error);

// select_isa() with the environment variable EDGE_ISA (unset: the best).
bool select_isa_from_environment(std::string* error);

// The set that ops() was narrowed to, e.g. "avx512vnni".
const char* isa_name();

struct KernelInfo {
    const char* op;
    Isa isa;
    const char* function;
    bool supported;  // this machine can run it
    bool chosen;     // it is the one in ops()
};

// Every kernel built for this architecture, in the order of kernels.inc.
std::vector<KernelInfo> list_kernels();

}  // namespace edge
