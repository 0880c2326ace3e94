#include "kernels/x86/dot_avx2.h"

#include "kernels/x86/attention_ymm.h"

namespace edge {

attention_q8_t attention_q8_avx2;

void attention_q8_avx2(const AttentionArgs& args) { attend_q8<YmmDots>(args); }

}  // namespace edge
