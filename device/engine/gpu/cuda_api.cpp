#include "cuda_api.h"

#include <dlfcn.h>

#include <string>

#include "errors.h"

namespace edge::gpu::cuda {
namespace {

struct Library {
    Api api;
    std::string failure;  // empty: none
};

Library look_up() {
    Library found;
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        found.failure = "no CUDA: libcuda.so.1 is not there\nhint: install NVIDIA's driver, or use backend `cpu`";
        return found;
    }
#define EDGE_CUDA_FUNCTION(name, symbol, parameters)                                                \
    found.api.name = reinterpret_cast<Status(*) parameters>(dlsym(library, symbol));                \
    if (!found.api.name) found.failure = "libcuda.so.1 lacks " symbol "\nhint: install a newer driver";
    EDGE_CUDA_FUNCTIONS
#undef EDGE_CUDA_FUNCTION
    if (!found.failure.empty()) return found;
    if (const Status status = found.api.Init(0); status != kSuccess) {
        found.failure = "CUDA finds no device: cuInit gave error " + std::to_string(status) + "\nhint: is the driver loaded? (nvidia-smi)";
    }
    return found;
}

}  // namespace

const Api& api() {
    static const Library library = look_up();  // stays: drivers do not like to be unloaded
    if (!library.failure.empty()) throw Error{EDGE_NO_DEVICE, library.failure};
    return library.api;
}

}  // namespace edge::gpu::cuda
