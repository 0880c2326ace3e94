#include "kernel_source.h"

#include <stdexcept>

namespace edge::gpu {

extern const char* const kKernelTexts[];  // ends with nullptr

#ifdef EDGE_FAULTS
namespace {
std::string fault_from, fault_to, fault_kernel;
}
void set_source_fault(const std::string& from, const std::string& to, const std::string& kernel) {
    fault_from = from;
    fault_to = to;
    fault_kernel = kernel;
}
const std::string& faulty_kernel() { return fault_kernel; }
#endif

std::string kernel_source() {
    std::string source;
    for (const char* const* text = kKernelTexts; *text; ++text) source += *text;
#ifdef EDGE_FAULTS
    if (!fault_from.empty()) {
        const size_t at = source.find(fault_from);
        if (at == std::string::npos) throw std::logic_error("the kernels do not contain `" + fault_from + "`");
        source.replace(at, fault_from.size(), fault_to);
    }
#endif
    return source;
}

}  // namespace edge::gpu
