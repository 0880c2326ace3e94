#include "kernels/x86/lanes_avx512vnni.h"
#include "kernels/lanes/conv_silu.h"
#include "kernels/lanes/dot_f16.h"
#include "kernels/lanes/ssm_scan.h"

namespace edge {

dot_f16_t dot_f16_avx512vnni;
conv_silu_t conv_silu_avx512vnni;
ssm_scan_t ssm_scan_avx512vnni;

void dot_f16_avx512vnni(const uint16_t* w, const float* x, int n_rows, int n, float* y) { dot_f16_rows(w, x, n_rows, n, y); }
void conv_silu_avx512vnni(const ConvArgs& args) { conv_silu_runs(args); }
void ssm_scan_avx512vnni(const ScanArgs& args) { ssm_scan_head(args); }

}  // namespace edge
