#include "opencl_api.h"

#include <dlfcn.h>

#include "errors.h"

namespace edge::gpu::cl {
namespace {

struct Library {
    Api api;
    std::string failure;  // empty: none
};

// Phones keep it where apps may not look by the plain name.
constexpr const char* kNames[] = {"libOpenCL.so.1", "libOpenCL.so", "/vendor/lib64/libOpenCL.so", "/system/vendor/lib64/libOpenCL.so",
                                  "/vendor/lib64/egl/libGLES_mali.so"};

Library look_up() {
    Library found;
    void* library = nullptr;
    for (const char* name : kNames) {
        if (!library) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (!library) {
        found.failure = "no OpenCL: libOpenCL.so.1 is not there\nhint: install the driver of the GPU (on Debian also ocl-icd-libopencl1)";
        return found;
    }
#define EDGE_CL(result, name, parameters)                                                           \
    found.api.name = reinterpret_cast<result(*) parameters>(dlsym(library, "cl" #name));            \
    if (!found.api.name) found.failure = "libOpenCL lacks cl" #name ", OpenCL 1.2 has it";
    EDGE_CL_FUNCTIONS
#undef EDGE_CL
    return found;
}

}  // namespace

const Api& api() {
    static const Library library = look_up();  // stays: drivers do not like to be unloaded
    if (!library.failure.empty()) throw Error{EDGE_NO_DEVICE, library.failure};
    return library.api;
}

}  // namespace edge::gpu::cl
