// All kernels as CUDA C++: the same text as for OpenCL. Compiled without -fmad: what is fused says so.
#include "dialect_cuda.cl"
#include "arithmetic.cl"
#include "weights.cl"
#include "rows.cl"
#include "attention.cl"
#include "mixer.cl"
