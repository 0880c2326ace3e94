#include "kernels/x86/lanes_avx512vnni.h"
#include "kernels/lanes/attention.h"

namespace edge {

attention_q8_t attention_q8_avx512vnni;

void attention_q8_avx512vnni(const AttentionArgs& args) { attend_all<Int8Cache>(args); }

}  // namespace edge
