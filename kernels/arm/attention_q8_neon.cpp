#include "kernels/arm/lanes_neon.h"
#include "kernels/lanes/attention.h"

namespace edge {

attention_q8_t attention_q8_neon;

void attention_q8_neon(const AttentionArgs& args) { attend_all<Int8Cache>(args); }

}  // namespace edge
