// EDGE_ISA really forces a set: the function that ops() holds is the one named in kernels.inc for it.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/registry.h"

using namespace edge;

namespace {

int n_failures = 0;

void check(bool held, const std::string& what) {
    if (held) return;
    ++n_failures;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
}

std::string chosen(const std::string& op) {
    std::string found;
    for (const KernelInfo& kernel : list_kernels()) {
        if (kernel.op != op || !kernel.chosen) continue;
        if (!found.empty()) found += " and ";
        found += kernel.function;
    }
    return found;
}

struct Expected {
    Isa isa;
    const char* lanes;  // the set whose norm, activation and 16-bit attention kernels it uses
    const char* dots;   // the set whose 8-bit attention it uses
};

// Written by hand, so that a wrong order or closure shows.
constexpr Expected kExpected[] = {
    {Isa::reference, "reference", "reference"},
    {Isa::avx2, "avx2", "avx2"},
    {Isa::avxvnni, "avx2", "avxvnni"},
    {Isa::avx512vnni, "avx512vnni", "avx512vnni"},
    {Isa::neon, "neon", "neon"},
    {Isa::dotprod, "neon", "dotprod"},
    {Isa::i8mm, "neon", "dotprod"},
};

void check_forced(const Expected& expected) {
    const std::string name = isa_text(expected.isa);
    setenv("EDGE_ISA", name.c_str(), 1);
    std::string error;
    const bool is_supported = (supported_isas() & isa_bit(expected.isa)) != 0;
    const Ops before = ops();
    check(select_isa_from_environment(&error) == is_supported, name + ": accepted only where it runs");
    if (!is_supported) {
        check(error.find("`" + name + "` is not available") != std::string::npos, "error names " + name + ": " + error);
        check(ops().matmul_q4 == before.matmul_q4, name + ": a refused set changes nothing");
        return;
    }
    check(isa_name() == name, "isa_name() is " + name);
    for (const char* op : {"matmul_q4", "matmul_q8", "dot_peak"}) {
        check(chosen(op) == std::string(op) + "_" + name, std::string(op) + " forced to " + name + " is " + chosen(op));
    }
    for (const char* op : {"quantize", "attention_f16", "rms_norm", "silu_mul", "gelu_mul", "softcap", "store_q8", "dot_f16", "conv_silu",
                           "ssm_scan"}) {
        check(chosen(op) == std::string(op) + "_" + expected.lanes, std::string(op) + " under " + name + " is " + chosen(op));
    }
    check(chosen("attention_q8") == std::string("attention_q8_") + expected.dots, "attention_q8 under " + name);
    for (const char* op : {"rope", "merge_heads", "embed_row", "store_f16", "ssm_step"}) {
        check(chosen(op) == std::string(op) + "_reference", std::string(op) + " under " + name + " is " + chosen(op));
    }
}

void check_refusals() {
    std::string error;
    const std::string before = isa_name();
    check(!select_isa("avx1024", &error), "an unknown set is refused");
    check(error.find("`avx1024` is unknown") != std::string::npos && error.find("\nhint: ") != std::string::npos, error);
    check(error.find("reference") != std::string::npos, "the hint lists what there is");
    check(!select_isa("AVX2", nullptr), "names are exact, and no message need be asked for");
    check(isa_name() == before, "a refused set changes nothing");
}

}  // namespace

int main() {
    for (const Expected& expected : kExpected) check_forced(expected);
    check_refusals();
    unsetenv("EDGE_ISA");
    check(select_isa_from_environment(nullptr), "without EDGE_ISA the best set is chosen");
    check(std::string(isa_name()) == isa_text(best_isa(supported_isas())), "the best set is chosen");
    std::printf("best set %s, %d failures\n", isa_name(), n_failures);
    return n_failures != 0;
}
