#include "kernels/x86/lanes_avx2.h"
#include "kernels/lanes/attention_f16.h"

namespace edge {

attention_f16_t attention_f16_avx2;

void attention_f16_avx2(const AttentionArgs& args) { attend_f16(args); }

}  // namespace edge
