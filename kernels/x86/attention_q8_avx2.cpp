#include "kernels/x86/lanes_avx2.h"
#include "kernels/lanes/attention.h"

namespace edge {

attention_q8_t attention_q8_avx2;

void attention_q8_avx2(const AttentionArgs& args) { attend_all<Int8Cache>(args); }

}  // namespace edge
