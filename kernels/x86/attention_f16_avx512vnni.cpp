#include "kernels/x86/lanes_avx512vnni.h"
#include "kernels/lanes/attention_f16.h"

namespace edge {

attention_f16_t attention_f16_avx512vnni;

void attention_f16_avx512vnni(const AttentionArgs& args) { attend_f16(args); }

}  // namespace edge
