// The functions of CUDA's driver API that the engine calls, looked up in libcuda when a model asks for them: nothing is linked, so one
// program runs with and without an NVIDIA driver. Names and numbers are those of NVIDIA's manual.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edge::gpu::cuda {

using Status = int;
using DeviceId = int;
using Context = struct OpaqueContext*;
using Module = struct OpaqueModule*;
using Function = struct OpaqueFunction*;
using Stream = struct OpaqueStream*;
using Event = struct OpaqueEvent*;
using Pointer = unsigned long long;  // to memory of the device

inline constexpr Status kSuccess = 0, kOutOfMemory = 2;
inline constexpr unsigned kMapToDevice = 2, kReadOnly = 8;  // of registered memory
inline constexpr int kIntegrated = 18;  // attribute: it shares memory with the host

// EDGE_CUDA_FUNCTION(name, symbol, parameters)
#define EDGE_CUDA_FUNCTIONS                                                                                                      \
    EDGE_CUDA_FUNCTION(Init, "cuInit", (unsigned))                                                                               \
    EDGE_CUDA_FUNCTION(DriverGetVersion, "cuDriverGetVersion", (int*))                                                           \
    EDGE_CUDA_FUNCTION(GetErrorName, "cuGetErrorName", (Status, const char**))                                                   \
    EDGE_CUDA_FUNCTION(DeviceGetCount, "cuDeviceGetCount", (int*))                                                               \
    EDGE_CUDA_FUNCTION(DeviceGet, "cuDeviceGet", (DeviceId*, int))                                                               \
    EDGE_CUDA_FUNCTION(DeviceGetName, "cuDeviceGetName", (char*, int, DeviceId))                                                 \
    EDGE_CUDA_FUNCTION(DeviceGetAttribute, "cuDeviceGetAttribute", (int*, int, DeviceId))                                        \
    EDGE_CUDA_FUNCTION(DeviceTotalMem, "cuDeviceTotalMem_v2", (size_t*, DeviceId))                                               \
    EDGE_CUDA_FUNCTION(PrimaryContextRetain, "cuDevicePrimaryCtxRetain", (Context*, DeviceId))                                   \
    EDGE_CUDA_FUNCTION(PrimaryContextRelease, "cuDevicePrimaryCtxRelease_v2", (DeviceId))                                        \
    EDGE_CUDA_FUNCTION(ContextPush, "cuCtxPushCurrent_v2", (Context))                                                            \
    EDGE_CUDA_FUNCTION(ContextPop, "cuCtxPopCurrent_v2", (Context*))                                                             \
    EDGE_CUDA_FUNCTION(ModuleLoadData, "cuModuleLoadData", (Module*, const void*))                                               \
    EDGE_CUDA_FUNCTION(ModuleUnload, "cuModuleUnload", (Module))                                                                 \
    EDGE_CUDA_FUNCTION(ModuleGetFunction, "cuModuleGetFunction", (Function*, Module, const char*))                               \
    EDGE_CUDA_FUNCTION(LaunchKernel, "cuLaunchKernel", (Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,    \
                                                       unsigned, Stream, void**, void**))                                        \
    EDGE_CUDA_FUNCTION(EventCreate, "cuEventCreate", (Event*, unsigned))                                                         \
    EDGE_CUDA_FUNCTION(EventRecord, "cuEventRecord", (Event, Stream))                                                            \
    EDGE_CUDA_FUNCTION(EventSynchronize, "cuEventSynchronize", (Event))                                                          \
    EDGE_CUDA_FUNCTION(EventElapsedTime, "cuEventElapsedTime", (float*, Event, Event))                                           \
    EDGE_CUDA_FUNCTION(EventDestroy, "cuEventDestroy_v2", (Event))                                                               \
    EDGE_CUDA_FUNCTION(MemAlloc, "cuMemAlloc_v2", (Pointer*, size_t))                                                            \
    EDGE_CUDA_FUNCTION(MemFree, "cuMemFree_v2", (Pointer))                                                                       \
    EDGE_CUDA_FUNCTION(HostRegister, "cuMemHostRegister_v2", (void*, size_t, unsigned))                                          \
    EDGE_CUDA_FUNCTION(HostGetPointer, "cuMemHostGetDevicePointer_v2", (Pointer*, void*, unsigned))                              \
    EDGE_CUDA_FUNCTION(HostUnregister, "cuMemHostUnregister", (void*))                                                           \
    EDGE_CUDA_FUNCTION(Synchronize, "cuCtxSynchronize", (void))                                                                  \
    EDGE_CUDA_FUNCTION(CopyToDevice, "cuMemcpyHtoD_v2", (Pointer, const void*, size_t))                                          \
    EDGE_CUDA_FUNCTION(CopyFromDevice, "cuMemcpyDtoH_v2", (void*, Pointer, size_t))

struct Api {
#define EDGE_CUDA_FUNCTION(name, symbol, parameters) Status(*name) parameters = nullptr;
    EDGE_CUDA_FUNCTIONS
#undef EDGE_CUDA_FUNCTION
};

// Throws EDGE_NO_DEVICE where libcuda is missing, lacks a function, or finds no driver.
const Api& api();

}  // namespace edge::gpu::cuda
