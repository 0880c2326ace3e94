// The words of the other files, as OpenCL C 1.2 knows them. dialect_cuda.cl says the same in CUDA C++.
#pragma OPENCL FP_CONTRACT OFF

#define GROUP 64                        // work items of every work group
#define KERNEL __kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
#define INLINE static inline
#define GLOBAL __global                 // where a pointer points to: memory of the device,
#define LOCAL __local                   // memory of a work group
#define SHARED __local                  // declares memory of the work group, in a kernel
#define LANE ((int)get_local_id(0))
#define GROUP_X ((int)get_group_id(0))
#define GROUP_Y ((int)get_group_id(1))
#define BARRIER() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)

typedef long wide;                      // 64 bits
#ifdef cl_khr_fp64                      // where more than binary32 is needed, and there is more
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
typedef double real;
#else
typedef float real;
#endif

#define FMA(a, b, c) fma(a, b, c)       // fused, as everywhere in kernels/ops.h
#define ROUND(x) rint(x)                // half to even
#define BITS(x) as_uint(x)
#define FLOAT(x) as_float(x)

// Element i of float16 numbers, widened.
INLINE float half_at(GLOBAL const ushort* halves, wide i) { return vload_half(i, (GLOBAL const half*)halves); }

// What is behind EDGE_ names is used where the device has the extension, its compiler takes it and the self-test passes with it; what
// it gives is the same to the bit.
#ifdef EDGE_SUBGROUPS                   // the largest of a few neighbours, without local memory
#pragma OPENCL EXTENSION cl_khr_subgroups : enable
#define SUBGROUP ((int)get_sub_group_id())
#define SUBGROUPS ((int)get_num_sub_groups())
#define SUBGROUP_LANE ((int)get_sub_group_local_id())
#define SUBGROUP_LARGEST(x) sub_group_reduce_max(x)
#endif

#ifdef EDGE_DOT_PRODUCTS
INLINE int dot4(uint a, uint b, int sum) { return sum + dot_4x8packed_ss_int(a, b); }
INLINE int dot4_unsigned(uint a, uint b, int sum) { return sum + dot_4x8packed_us_int(a, b); }
#else
// sum + the products of four int8 in the bytes of a and b.
INLINE int dot4(uint a, uint b, int sum) {
    const int4 products = convert_int4(as_char4(a)) * convert_int4(as_char4(b));
    return sum + products.x + products.y + products.z + products.w;
}

// The same with bytes of `a` that have no sign.
INLINE int dot4_unsigned(uint a, uint b, int sum) {
    const int4 products = convert_int4(as_uchar4(a)) * convert_int4(as_char4(b));
    return sum + products.x + products.y + products.z + products.w;
}
#endif
