#include "kernels/registry.h"

#include <atomic>
#include <cstdlib>

namespace edge {

#define EDGE_KERNEL(op, isa, function) op##_t function;
#include "kernels/kernels.inc"
#undef EDGE_KERNEL

namespace {

Ops choose(IsaSet allowed) {
    Ops ops;
#define EDGE_KERNEL(op, isa, function) \
    if (ops.op == nullptr && (allowed & isa_bit(Isa::isa)) != 0) ops.op = function;
#include "kernels/kernels.inc"
#undef EDGE_KERNEL
    return ops;
}

struct Choice {
    Isa isa;
    Ops ops;
};

// One table for every set, so that a pointer handed out stays valid when another set is selected.
const Choice& choice_of(Isa isa) {
    static const std::vector<Choice> choices = [] {
        std::vector<Choice> all;
        for (int i = 0; i < kIsaCount; ++i) {
            const Isa each = static_cast<Isa>(i);
            all.push_back({each, choose(isa_closure(each) & supported_isas())});
        }
        return all;
    }();
    return choices[static_cast<size_t>(isa)];
}

std::atomic<const Choice*>& current() {
    static std::atomic<const Choice*> choice{&choice_of(best_isa(supported_isas()))};
    return choice;
}

std::string supported_names() {
    std::string names;
    for (int i = kIsaCount - 1; i >= 0; --i) {
        const Isa isa = static_cast<Isa>(i);
        if ((supported_isas() & isa_bit(isa)) == 0) continue;
        if (!names.empty()) names += ", ";
        names += isa_text(isa);
    }
    return names;
}

}  // namespace

const Ops& ops() { return current().load(std::memory_order_acquire)->ops; }

const char* isa_name() { return isa_text(current().load(std::memory_order_acquire)->isa); }

bool select_isa(std::string_view name, std::string* error) {
    Isa isa = best_isa(supported_isas());
    const bool known = name.empty() || find_isa(name, &isa);
    if (known && (supported_isas() & isa_bit(isa)) != 0) {
        current().store(&choice_of(isa), std::memory_order_release);
        return true;
    }
    if (error != nullptr) {
        *error = "instruction set `" + std::string(name) + "` " + (known ? "is not available on this machine" : "is unknown") +
                 "\nhint: this machine runs " + supported_names();
    }
    return false;
}

bool select_isa_from_environment(std::string* error) {
    const char* name = std::getenv("EDGE_ISA");
    return select_isa(name == nullptr ? "" : name, error);
}

std::vector<KernelInfo> list_kernels() {
    const Ops& chosen = ops();
    std::vector<KernelInfo> kernels;
#define EDGE_KERNEL(op, isa, function) \
    kernels.push_back({#op, Isa::isa, #function, (supported_isas() & isa_bit(Isa::isa)) != 0, chosen.op == function});
#include "kernels/kernels.inc"
#undef EDGE_KERNEL
    return kernels;
}

}  // namespace edge
