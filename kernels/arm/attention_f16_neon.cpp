#include "kernels/arm/lanes_neon.h"
#include "kernels/lanes/attention.h"

namespace edge {

attention_f16_t attention_f16_neon;

void attention_f16_neon(const AttentionArgs& args) { attend_all<Float16Cache>(args); }

}  // namespace edge
