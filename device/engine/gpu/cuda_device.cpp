#include "cuda_device.h"

#include <cstdint>
#include <string>
#include <string_view>

#include "bytes.h"
#include "cuda_api.h"
#include "cuda_kernels.h"
#include "errors.h"
#include "program_cache.h"

namespace edge::gpu {
namespace {

using cuda::Status;

constexpr size_t kMostArguments = 32;

class CudaDevice final : public Device {
public:
    CudaDevice() : api_(cuda::api()) {
        describe();
        check(api_.PrimaryContextRetain(&context_, id_), "cuDevicePrimaryCtxRetain");
        try {
            const Current current(*this);
            load();
        } catch (...) {
            close();
            throw;
        }
    }
    ~CudaDevice() override { close(); }

    void launch(Kernel kernel, int64_t x, int64_t y, std::initializer_list<Argument> arguments) override {
        cuda::Pointer pointers[kMostArguments];
        void* values[kMostArguments];
        size_t n = 0;
        for (const Argument& argument : arguments) {
            pointers[n] = argument.buffer ? pointer_of(argument.buffer->handle()) : 0;
            // The driver copies the value before it returns, and does not write to it.
            values[n] = argument.buffer ? static_cast<void*>(pointers + n) : const_cast<int32_t*>(&argument.integer);
            ++n;
        }
        const Current current(*this);
        check(api_.LaunchKernel(kernels_[static_cast<size_t>(kernel)], static_cast<unsigned>(x), static_cast<unsigned>(y), 1, kGroup, 1, 1,
                                0, nullptr, values, nullptr),
              kKernelNames[static_cast<size_t>(kernel)]);
    }

    std::unique_ptr<KernelTime> launch_timed(Kernel kernel, int64_t x, int64_t y, std::initializer_list<Argument> arguments) override {
        auto time = std::make_unique<CudaTime>(*this);
        time->begin();
        launch(kernel, x, y, arguments);
        time->end();
        return time;
    }

    const std::string& program_key() const override { return program_key_; }
    int32_t n_compiled() const override { return 0; }  // the build did, or the driver, which keeps what it makes of PTX

private:
    // Makes the context this thread's own for a moment; what was there before comes back.
    class Current {
    public:
        explicit Current(const CudaDevice& device) : api_(device.api_) { check(api_.ContextPush(device.context_), "cuCtxPushCurrent"); }
        ~Current() {
            cuda::Context gone;
            api_.ContextPop(&gone);
        }
        Current(const Current&) = delete;
        Current& operator=(const Current&) = delete;

    private:
        const cuda::Api& api_;
    };

    // Between two events around the kernel. (Kernels of other threads that come between them count, too.)
    class CudaTime final : public KernelTime {
    public:
        explicit CudaTime(const CudaDevice& device) : device_(device) {
            const Current current(device_);
            for (cuda::Event& event : events_) check(device_.api_.EventCreate(&event, 0), "cuEventCreate");
        }
        ~CudaTime() override {
            if (device_.api_.ContextPush(device_.context_) != cuda::kSuccess) return;
            cuda::Context gone;
            for (const cuda::Event event : events_) device_.api_.EventDestroy(event);
            device_.api_.ContextPop(&gone);
        }
        void begin() { record(events_[0]); }
        void end() { record(events_[1]); }
        uint64_t nanoseconds() override {
            const Current current(device_);
            float milliseconds = 0;
            check(device_.api_.EventSynchronize(events_[1]), "cuEventSynchronize");
            check(device_.api_.EventElapsedTime(&milliseconds, events_[0], events_[1]), "cuEventElapsedTime");
            return static_cast<uint64_t>(milliseconds * 1e6f);
        }

    private:
        void record(cuda::Event event) {
            const Current current(device_);
            check(device_.api_.EventRecord(event, nullptr), "cuEventRecord");
        }

        const CudaDevice& device_;
        cuda::Event events_[2] = {};
    };

    static void check(Status status, const char* what) {
        if (status == cuda::kSuccess) return;
        const char* name = nullptr;
        cuda::api().GetErrorName(status, &name);
        throw Error{EDGE_IO, std::string("CUDA failed: ") + what + " gave " + (name ? name : std::to_string(status))};
    }

    static cuda::Pointer pointer_of(void* handle) { return reinterpret_cast<uintptr_t>(handle); }

    void describe() {
        int n_devices = 0, version = 0, integrated = 0;
        size_t memory_bytes = 0;
        char name[256] = "";
        check(api_.DeviceGetCount(&n_devices), "cuDeviceGetCount");
        if (n_devices == 0) throw Error{EDGE_NO_DEVICE, "CUDA has no device\nhint: use backend `cpu`"};
        check(api_.DeviceGet(&id_, 0), "cuDeviceGet");
        check(api_.DeviceGetName(name, sizeof name, id_), "cuDeviceGetName");
        check(api_.DeviceTotalMem(&memory_bytes, id_), "cuDeviceTotalMem");
        check(api_.DriverGetVersion(&version), "cuDriverGetVersion");
        check(api_.DeviceGetAttribute(&integrated, cuda::kIntegrated, id_), "cuDeviceGetAttribute");
        info_.backend = EDGE_BACKEND_CUDA;
        info_.name = name;
        info_.driver = "CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
        info_.is_gpu = true;
        info_.shares_memory = integrated != 0;
        info_.memory_bytes = info_.buffer_bytes = memory_bytes;
    }

    void load() {
        const auto kernels = cuda_kernels();
        program_key_ = cache_key({info_.name, info_.driver,
                                  std::string_view(reinterpret_cast<const char*>(kernels.data()), kernels.size())});
        if (api_.ModuleLoadData(&module_, kernels.data()) != cuda::kSuccess) {
            throw Error{EDGE_NO_DEVICE, "the driver of " + info_.name + " (" + info_.driver +
                                            ") does not take the kernels\nhint: install a newer driver, or use backend `cpu`"};
        }
        for (size_t k = 0; k < kKernelNames.size(); ++k) {
            check(api_.ModuleGetFunction(&kernels_[k], module_, kKernelNames[k]), kKernelNames[k]);
        }
    }

    void close() noexcept {
        if (module_ && api_.ContextPush(context_) == cuda::kSuccess) {
            cuda::Context gone;
            api_.ModuleUnload(module_);
            api_.ContextPop(&gone);
        }
        if (context_) api_.PrimaryContextRelease(id_);
    }

    void* allocate(uint64_t n_bytes) override {
        const Current current(*this);
        cuda::Pointer pointer = 0;
        const Status status = api_.MemAlloc(&pointer, static_cast<size_t>(n_bytes));
        if (status == cuda::kOutOfMemory) {
            throw Error{EDGE_OUT_OF_MEMORY, info_.name + " has no " + mebibytes(n_bytes) + " left, beside the " +
                                                mebibytes(allocated_bytes()) +
                                                " that this process holds there" +
                                                "\nhint: lower the context, choose a smaller level, or use backend `cpu`"};
        }
        check(status, "cuMemAlloc");
        return reinterpret_cast<void*>(static_cast<uintptr_t>(pointer));
    }

    // The driver waits for kernels that still use it.
    void release(void* handle) noexcept override {
        if (api_.ContextPush(context_) != cuda::kSuccess) return;
        cuda::Context gone;
        api_.MemFree(pointer_of(handle));
        api_.ContextPop(&gone);
    }

    void* share(const void* pages, uint64_t n_bytes) override {
        const Current current(*this);
        void* own = const_cast<void*>(pages);  // read-only
        cuda::Pointer pointer = 0;
        if (api_.HostRegister(own, static_cast<size_t>(n_bytes), cuda::kMapToDevice | cuda::kReadOnly) != cuda::kSuccess) return nullptr;
        if (api_.HostGetPointer(&pointer, own, 0) != cuda::kSuccess) {
            api_.HostUnregister(own);
            return nullptr;
        }
        return reinterpret_cast<void*>(static_cast<uintptr_t>(pointer));
    }

    void unshare(void*, const void* pages) noexcept override {
        if (api_.ContextPush(context_) != cuda::kSuccess) return;
        cuda::Context gone;
        api_.Synchronize();
        api_.HostUnregister(const_cast<void*>(pages));
        api_.ContextPop(&gone);
    }

    // Both come after all kernels before them: everything runs in the context's own stream.
    void write(void* handle, uint64_t at, const void* from, uint64_t n_bytes) override {
        const Current current(*this);
        check(api_.CopyToDevice(pointer_of(handle) + at, from, static_cast<size_t>(n_bytes)), "cuMemcpyHtoD");
    }

    void read(void* handle, uint64_t at, void* to, uint64_t n_bytes) override {
        const Current current(*this);
        check(api_.CopyFromDevice(to, pointer_of(handle) + at, static_cast<size_t>(n_bytes)), "cuMemcpyDtoH");
    }

    const cuda::Api& api_;
    cuda::DeviceId id_ = 0;
    cuda::Context context_ = nullptr;
    cuda::Module module_ = nullptr;
    std::array<cuda::Function, kKernelNames.size()> kernels_{};
    std::string program_key_;
};

}  // namespace

std::shared_ptr<Device> open_cuda() {
    if (cuda_kernels().empty()) {
        throw Error{EDGE_NO_DEVICE, "this build has no CUDA kernels\nhint: configure with -DEDGE_NVCC=/path/to/nvcc, or use backend `cpu`"};
    }
    return std::make_shared<CudaDevice>();
}

}  // namespace edge::gpu
