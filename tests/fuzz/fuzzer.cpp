// What libFuzzer calls, for the target that EDGE_FUZZ_TARGET names. One change in four is libFuzzer's own, where a target knows
// the structure of its inputs.
#include <algorithm>

#include "targets.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    edge_fuzz::EDGE_FUZZ_TARGET.run({reinterpret_cast<const char*>(data), size});
    return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
    if (!edge_fuzz::EDGE_FUZZ_TARGET.mutate || seed % 4 == 0) return LLVMFuzzerMutate(data, size, max_size);
    const std::string changed = edge_fuzz::EDGE_FUZZ_TARGET.mutate({reinterpret_cast<const char*>(data), size}, seed);
    const size_t n = std::min(changed.size(), max_size);
    std::copy_n(changed.begin(), n, data);
    return n;
}
