// The functions of OpenCL 1.2 that the engine calls, looked up in libOpenCL when a model asks for them: nothing is linked, so one
// program runs with and without OpenCL. Names and numbers are those of the Khronos specification.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace edge::gpu::cl {

using Platform = struct OpaquePlatform*;
using DeviceId = struct OpaqueDevice*;
using Context = struct OpaqueContext*;
using Queue = struct OpaqueQueue*;
using Program = struct OpaqueProgram*;
using KernelId = struct OpaqueKernel*;
using Memory = struct OpaqueMemory*;
using Event = struct OpaqueEvent*;
using Status = int32_t;
using Bits = uint64_t;

inline constexpr Status kSuccess = 0, kMemoryFailure = -4, kOutOfResources = -5, kOutOfHostMemory = -6, kInvalidBufferSize = -61;
inline constexpr Bits kTypeGpu = 1 << 2, kTypeAll = 0xFFFFFFFF, kReadWrite = 1, kReadOnly = 1 << 2, kUseHostPointer = 1 << 3,
                      kRoundsDivisions = 1 << 7, kKeepsTimes = 1 << 1;
inline constexpr uint32_t kPlatformVersion = 0x0901, kPlatformName = 0x0902;
inline constexpr uint32_t kDeviceType = 0x1000, kDeviceMaxGroup = 0x1004, kDeviceMaxBuffer = 0x1010, kDeviceSingleConfig = 0x101B,
                          kDeviceMemory = 0x101F, kDeviceLocalMemory = 0x1023, kDeviceLittleEndian = 0x1026, kDeviceName = 0x102B,
                          kDeviceExtensions = 0x1030, kDriverVersion = 0x102D, kDeviceVersion = 0x102F, kDeviceUnifiedMemory = 0x1035;
inline constexpr uint32_t kProgramBinarySizes = 0x1165, kProgramBinaries = 0x1166, kProgramLog = 0x1183;
inline constexpr uint32_t kEventStart = 0x1282, kEventEnd = 0x1283;

// Of vendors: cl_qcom_perf_hint, as properties of a context, and cl_arm_import_memory.
inline constexpr intptr_t kFastClocks[] = {0x40C2, 0x40C3, 0}, kHostPages[] = {0x40B2, 0x40B3, 0};
using Import = Memory(Context, Bits, const intptr_t* properties, void* pages, size_t n_bytes, Status*);

// EDGE_CL(result, name, parameters)
#define EDGE_CL_FUNCTIONS                                                                                                     \
    EDGE_CL(Status, GetPlatformIDs, (uint32_t, Platform*, uint32_t*))                                                         \
    EDGE_CL(Status, GetPlatformInfo, (Platform, uint32_t, size_t, void*, size_t*))                                            \
    EDGE_CL(void*, GetExtensionFunctionAddressForPlatform, (Platform, const char*))                                           \
    EDGE_CL(Status, GetDeviceIDs, (Platform, Bits, uint32_t, DeviceId*, uint32_t*))                                           \
    EDGE_CL(Status, GetDeviceInfo, (DeviceId, uint32_t, size_t, void*, size_t*))                                              \
    EDGE_CL(Context, CreateContext, (const intptr_t*, uint32_t, const DeviceId*,                                              \
                                     void (*)(const char*, const void*, size_t, void*), void*, Status*))                      \
    EDGE_CL(Status, ReleaseContext, (Context))                                                                                \
    EDGE_CL(Queue, CreateCommandQueue, (Context, DeviceId, Bits, Status*))                                                    \
    EDGE_CL(Status, ReleaseCommandQueue, (Queue))                                                                             \
    EDGE_CL(Program, CreateProgramWithSource, (Context, uint32_t, const char**, const size_t*, Status*))                      \
    EDGE_CL(Program, CreateProgramWithBinary, (Context, uint32_t, const DeviceId*, const size_t*, const uint8_t**, Status*, Status*)) \
    EDGE_CL(Status, BuildProgram, (Program, uint32_t, const DeviceId*, const char*, void (*)(Program, void*), void*))         \
    EDGE_CL(Status, GetProgramBuildInfo, (Program, DeviceId, uint32_t, size_t, void*, size_t*))                               \
    EDGE_CL(Status, GetProgramInfo, (Program, uint32_t, size_t, void*, size_t*))                                              \
    EDGE_CL(Status, ReleaseProgram, (Program))                                                                                \
    EDGE_CL(KernelId, CreateKernel, (Program, const char*, Status*))                                                          \
    EDGE_CL(Status, ReleaseKernel, (KernelId))                                                                                \
    EDGE_CL(Status, SetKernelArg, (KernelId, uint32_t, size_t, const void*))                                                  \
    EDGE_CL(Status, EnqueueNDRangeKernel, (Queue, KernelId, uint32_t, const size_t*, const size_t*, const size_t*, uint32_t,  \
                                           const Event*, Event*))                                                             \
    EDGE_CL(Memory, CreateBuffer, (Context, Bits, size_t, void*, Status*))                                                    \
    EDGE_CL(Status, ReleaseMemObject, (Memory))                                                                               \
    EDGE_CL(Status, EnqueueWriteBuffer, (Queue, Memory, uint32_t, size_t, size_t, const void*, uint32_t, const Event*, Event*)) \
    EDGE_CL(Status, EnqueueReadBuffer, (Queue, Memory, uint32_t, size_t, size_t, void*, uint32_t, const Event*, Event*))      \
    EDGE_CL(Status, WaitForEvents, (uint32_t, const Event*))                                                                  \
    EDGE_CL(Status, GetEventProfilingInfo, (Event, uint32_t, size_t, void*, size_t*))                                         \
    EDGE_CL(Status, ReleaseEvent, (Event))                                                                                    \
    EDGE_CL(Status, Finish, (Queue))

struct Api {
#define EDGE_CL(result, name, parameters) result(*name) parameters = nullptr;
    EDGE_CL_FUNCTIONS
#undef EDGE_CL
};

// Throws EDGE_NO_DEVICE where libOpenCL is missing, or lacks a function.
const Api& api();

}  // namespace edge::gpu::cl
