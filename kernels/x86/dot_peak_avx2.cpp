#include "kernels/x86/dot_avx2.h"
#include "kernels/x86/dot_peak_ymm.h"

namespace edge {

dot_peak_t dot_peak_avx2;

int64_t dot_peak_avx2(int64_t rounds, int32_t* sink) { return dot_peak_ymm(rounds, sink); }

}  // namespace edge
