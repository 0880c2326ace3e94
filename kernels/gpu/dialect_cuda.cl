// The words of the other files, as CUDA C++ knows them. dialect_opencl.cl says the same in OpenCL C.

#define GROUP 64                        // threads of every block
#define KERNEL extern "C" __global__ void __launch_bounds__(GROUP)
#define INLINE static __device__ __forceinline__
#define GLOBAL                          // where a pointer points to: memory of the device,
#define LOCAL                           // memory of a block
#define SHARED __shared__               // declares memory of the block, in a kernel
#define LANE ((int)threadIdx.x)
#define GROUP_X ((int)blockIdx.x)
#define GROUP_Y ((int)blockIdx.y)
#define BARRIER() __syncthreads()

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef long long wide;                 // 64 bits
typedef double real;                    // where more than binary32 is needed

#define FMA(a, b, c) __fmaf_rn(a, b, c) // fused, as everywhere in kernels/ops.h
#define ROUND(x) rintf(x)               // half to even
#define BITS(x) __float_as_uint(x)
#define FLOAT(x) __uint_as_float(x)
#define sqrt(x) sqrtf(x)
#define fabs(x) fabsf(x)
#define fmax(a, b) fmaxf(a, b)

// Element i of float16 numbers, widened.
INLINE float half_at(const ushort* halves, wide i) {
    float value;
    asm("{ .reg .b16 h; mov.b16 h, %1; cvt.f32.f16 %0, h; }" : "=f"(value) : "h"(halves[i]));
    return value;
}

// sum + the products of four int8 in the bytes of a and b.
INLINE int dot4(uint a, uint b, int sum) { return __dp4a((int)a, (int)b, sum); }

// The same with bytes of `a` that have no sign.
INLINE int dot4_unsigned(uint a, uint b, int sum) {
    int result;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
