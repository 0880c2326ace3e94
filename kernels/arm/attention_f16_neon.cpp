#include "kernels/arm/lanes_neon.h"
#include "kernels/lanes/attention_f16.h"

namespace edge {

attention_f16_t attention_f16_neon;

void attention_f16_neon(const AttentionArgs& args) { attend_f16(args); }

}  // namespace edge
