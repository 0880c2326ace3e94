#include "kernels/x86/dot_avxvnni.h"
#include "kernels/x86/dot_peak_ymm.h"

namespace edge {

dot_peak_t dot_peak_avxvnni;

int64_t dot_peak_avxvnni(int64_t rounds, int32_t* sink) { return dot_peak_ymm(rounds, sink); }

}  // namespace edge
