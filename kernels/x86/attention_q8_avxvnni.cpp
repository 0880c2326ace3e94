#include "kernels/x86/dot_avxvnni.h"

#include "kernels/x86/attention_ymm.h"

namespace edge {

attention_q8_t attention_q8_avxvnni;

void attention_q8_avxvnni(const AttentionArgs& args) { attend_q8<YmmDots>(args); }

}  // namespace edge
