#include "opencl_device.h"

#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "bytes.h"
#include "errors.h"
#include "kernel_source.h"
#include "opencl_api.h"
#include "program_cache.h"

namespace edge::gpu {
namespace {

using cl::Status;

// What OpenCL's own checks find is ours to explain; the numbers are those of CL/cl.h.
void check(Status status, const char* what) {
    if (status == cl::kSuccess) return;
    throw Error{EDGE_IO, std::string("OpenCL failed: ") + what + " gave error " + std::to_string(status)};
}

template <typename Get>
std::string text_of(Get&& get) {
    size_t n_bytes = 0;
    if (get(size_t{0}, nullptr, &n_bytes) != cl::kSuccess || n_bytes == 0) return "";
    std::string text(n_bytes, '\0');
    if (get(n_bytes, text.data(), nullptr) != cl::kSuccess) return "";
    text.resize(text.find('\0') == std::string::npos ? n_bytes : text.find('\0'));
    return text;
}

std::string platform_text(cl::Platform platform, uint32_t what) {
    return text_of([&](size_t size, void* to, size_t* needed) { return cl::api().GetPlatformInfo(platform, what, size, to, needed); });
}

std::string device_text(cl::DeviceId device, uint32_t what) {
    return text_of([&](size_t size, void* to, size_t* needed) { return cl::api().GetDeviceInfo(device, what, size, to, needed); });
}

template <typename T>
T device_number(cl::DeviceId device, uint32_t what) {
    T value{};
    cl::api().GetDeviceInfo(device, what, sizeof value, &value, nullptr);
    return value;
}

struct Found {
    cl::Platform platform;
    cl::DeviceId device;
};

std::vector<Found> all_devices() {
    uint32_t n_platforms = 0;
    cl::api().GetPlatformIDs(0, nullptr, &n_platforms);
    std::vector<cl::Platform> platforms(n_platforms);
    if (n_platforms > 0) cl::api().GetPlatformIDs(n_platforms, platforms.data(), nullptr);
    std::vector<Found> found;
    for (const cl::Platform platform : platforms) {
        uint32_t n_devices = 0;
        if (cl::api().GetDeviceIDs(platform, cl::kTypeAll, 0, nullptr, &n_devices) != cl::kSuccess) continue;
        std::vector<cl::DeviceId> devices(n_devices);
        cl::api().GetDeviceIDs(platform, cl::kTypeAll, n_devices, devices.data(), nullptr);
        for (const cl::DeviceId device : devices) found.push_back({platform, device});
    }
    return found;
}

bool is_gpu(cl::DeviceId device) {
#ifdef EDGE_FAULTS
    if (memory_of_gpus() > 0) return true;
#endif
    return device_number<cl::Bits>(device, cl::kDeviceType) & cl::kTypeGpu;
}

Found choose_device(bool only_gpu) {
    const std::vector<Found> devices = all_devices();
    const char* wanted = std::getenv("EDGE_OPENCL_DEVICE");
    const Found* best = nullptr;
    std::string names;
    for (const Found& found : devices) {
        const std::string name = device_text(found.device, cl::kDeviceName);
        names += (names.empty() ? "" : ", ") + name;
        if (only_gpu && !is_gpu(found.device)) continue;
        if (wanted && name.find(wanted) == std::string::npos) continue;
        if (!best || (is_gpu(found.device) && !is_gpu(best->device))) best = &found;
    }
    if (best) return *best;
    if (devices.empty()) {
        throw Error{EDGE_NO_DEVICE, "OpenCL has no device\nhint: install the driver of the GPU (for tests without one: pocl-opencl-icd)"};
    }
    throw Error{EDGE_NO_DEVICE, std::string("OpenCL has no ") + (only_gpu ? "GPU" : "device") +
                                    (wanted ? std::string(" whose name contains `") + wanted + "` (EDGE_OPENCL_DEVICE)" : "") +
                                    ", only: " + names};
}

class OpenClTime final : public KernelTime {
public:
    explicit OpenClTime(cl::Event event) : event_(event) {}
    ~OpenClTime() override { cl::api().ReleaseEvent(event_); }

    uint64_t nanoseconds() override {
        check(cl::api().WaitForEvents(1, &event_), "clWaitForEvents");
        return at(cl::kEventEnd) - at(cl::kEventStart);
    }

private:
    uint64_t at(uint32_t what) const {
        uint64_t time = 0;
        check(cl::api().GetEventProfilingInfo(event_, what, sizeof time, &time, nullptr), "clGetEventProfilingInfo");
        return time;
    }

    cl::Event event_;
};

class OpenClDevice final : public Device {
public:
    OpenClDevice(const Found& found, bool plain) : id_(found.device), api_(cl::api()) {
        describe();
        require_able();
        create_context();
        find_import(found.platform);
        Status status = 0;
        try {
            queue_ = create_queue(0);
            make_program(platform_text(found.platform, cl::kPlatformName) + "\n" +
                             platform_text(found.platform, cl::kPlatformVersion),
                         plain ? std::vector<Extension>() : extensions());
            for (size_t k = 0; k < kKernelNames.size(); ++k) {
                kernels_[k] = api_.CreateKernel(program_, kKernelNames[k], &status);
                check(status, kKernelNames[k]);
            }
        } catch (...) {
            close();
            throw;
        }
    }
    ~OpenClDevice() override { close(); }

    void launch(Kernel kernel, int64_t x, int64_t y, std::initializer_list<Argument> arguments) override {
        const std::lock_guard lock(mutex_);
        enqueue(kernel, x, y, arguments, nullptr);
    }

    std::unique_ptr<KernelTime> launch_timed(Kernel kernel, int64_t x, int64_t y, std::initializer_list<Argument> arguments) override {
        const std::lock_guard lock(mutex_);
        keep_times();
        cl::Event event = nullptr;
        enqueue(kernel, x, y, arguments, &event);
        return std::make_unique<OpenClTime>(event);
    }

    const std::string& program_key() const override { return program_key_; }
    int32_t n_compiled() const override { return n_compiled_; }

private:
    // Adreno: clocks go up at once, for work that comes in short bursts. A driver that does not take the wish gets none.
    void create_context() {
        Status status = 0;
        if (has_extension("cl_qcom_perf_hint")) {
            context_ = api_.CreateContext(cl::kFastClocks, 1, &id_, nullptr, nullptr, &status);
            if (status == cl::kSuccess) {
                info_.driver += ", cl_qcom_perf_hint";
                return;
            }
        }
        context_ = api_.CreateContext(nullptr, 1, &id_, nullptr, nullptr, &status);
        check(status, "clCreateContext");
    }

    // Mali: pages that this process has mapped are imported, where a buffer over them would be a copy.
    void find_import(cl::Platform platform) {
        if (!has_extension("cl_arm_import_memory_host") && !has_extension("cl_arm_import_memory")) return;
        import_ = reinterpret_cast<cl::Import*>(api_.GetExtensionFunctionAddressForPlatform(platform, "clImportMemoryARM"));
#ifdef EDGE_FAULTS
        if (import_of_gpus()) import_ = reinterpret_cast<cl::Import*>(import_of_gpus());
#endif
        if (import_) info_.driver += ", cl_arm_import_memory";
    }

    cl::Queue create_queue(cl::Bits properties) const {  // in order
        Status status = 0;
        const cl::Queue queue = api_.CreateCommandQueue(context_, id_, properties, &status);
        check(status, "clCreateCommandQueue");
        return queue;
    }

    // From now on all goes through a queue that keeps times, which may be slower. What is in the one before has run by then.
    void keep_times() {
        if (untimed_queue_) return;
        const cl::Queue timed = create_queue(cl::kKeepsTimes);
        const Status status = api_.Finish(queue_);
        if (status != cl::kSuccess) api_.ReleaseCommandQueue(timed);
        check(status, "clFinish");
        untimed_queue_ = queue_;  // stays until the end: another thread may still read from it
        queue_ = timed;
    }

    // The caller holds the lock: a kernel keeps its arguments until it is in the queue.
    void enqueue(Kernel kernel, int64_t x, int64_t y, std::initializer_list<Argument> arguments, cl::Event* event) {
        const cl::KernelId id = kernels_[static_cast<size_t>(kernel)];
        const char* name = kKernelNames[static_cast<size_t>(kernel)];
        uint32_t index = 0;
        for (const Argument& argument : arguments) {
            if (argument.buffer) {
                void* handle = argument.buffer->handle();
                check(api_.SetKernelArg(id, index++, sizeof handle, &handle), name);
            } else {
                check(api_.SetKernelArg(id, index++, 4, &argument.integer), name);
            }
        }
        const size_t global[] = {static_cast<size_t>(x) * kGroup, static_cast<size_t>(y)}, local[] = {kGroup, 1};
        check(api_.EnqueueNDRangeKernel(queue_, id, 2, nullptr, global, local, 0, nullptr, event), name);
    }

    void describe() {
        info_.backend = EDGE_BACKEND_OPENCL;
        info_.name = device_text(id_, cl::kDeviceName);
        info_.driver = device_text(id_, cl::kDeviceVersion) + ", driver " + device_text(id_, cl::kDriverVersion);
        info_.is_gpu = is_gpu(id_);
        info_.shares_memory = !info_.is_gpu || device_number<uint32_t>(id_, cl::kDeviceUnifiedMemory) != 0;
        info_.memory_bytes = device_number<uint64_t>(id_, cl::kDeviceMemory);
        info_.buffer_bytes = device_number<uint64_t>(id_, cl::kDeviceMaxBuffer);
#ifdef EDGE_FAULTS
        if (memory_of_gpus() > 0) info_.memory_bytes = memory_of_gpus(), info_.shares_memory = false;
#endif
    }

    void require_able() const {
        constexpr uint64_t kLocalBytes = 16 << 10;
        const bool able = device_number<size_t>(id_, cl::kDeviceMaxGroup) >= kGroup &&
                          device_number<uint64_t>(id_, cl::kDeviceLocalMemory) >= kLocalBytes &&
                          device_number<uint32_t>(id_, cl::kDeviceLittleEndian) != 0;
        if (able) return;
        throw Error{EDGE_NO_DEVICE, info_.name + " cannot run the kernels: they need work groups of " + std::to_string(kGroup) +
                                        " with 16 KiB of local memory, and little-endian numbers"};
    }

    bool has_extension(const char* name) const {
        std::string names = " " + device_text(id_, cl::kDeviceExtensions) + " ";
#ifdef EDGE_FAULTS
        if (!extensions_of_gpus().empty()) names = " " + extensions_of_gpus() + " ";
#endif
        return names.find(std::string(" ") + name + " ") != std::string::npos;
    }

    struct Extension {
        const char *name, *option;
    };
    // Of which the kernels make use.
    std::vector<Extension> extensions() const {
        std::vector<Extension> found;
        for (const Extension& known : {Extension{"cl_khr_integer_dot_product", " -DEDGE_DOT_PRODUCTS"},
                                       Extension{"cl_khr_subgroups", " -DEDGE_SUBGROUPS"}}) {
            if (has_extension(known.name)) found.push_back(known);
        }
        return found;
    }

    // With extensions the newest language that the device knows: some need it.
    const char* language(bool is_plain) const {
        const std::string version = device_text(id_, cl::kDeviceVersion);
        if (is_plain || version.rfind("OpenCL 1", 0) == 0) return "-cl-std=CL1.2";
        return version.rfind("OpenCL 2", 0) == 0 ? "-cl-std=CL2.0" : "-cl-std=CL3.0";
    }

    // With all extensions, or else with the first one alone, or with none: what the compiler takes.
    void make_program(const std::string& platform, std::vector<Extension> extensions) {
        for (; !extensions.empty(); extensions.pop_back()) {
            try {
                make_program_with(platform, extensions);
                info_.uses_extensions = true;
                for (const Extension& extension : extensions) info_.driver += std::string(", ") + extension.name;
                return;
            } catch (const Error&) {
                if (program_) api_.ReleaseProgram(program_);
                program_ = nullptr;
            }
        }
        make_program_with(platform, {});
    }

    // From the cache, or from source; then it is kept.
    void make_program_with(const std::string& platform, const std::vector<Extension>& extensions) {
        std::string options = language(extensions.empty());
        for (const Extension& extension : extensions) options += extension.option;
        if (device_number<cl::Bits>(id_, cl::kDeviceSingleConfig) & cl::kRoundsDivisions) {
            options += " -cl-fp32-correctly-rounded-divide-sqrt";
        }
#ifdef EDGE_FAULTS
        if (!faulty_kernel().empty()) options += " -cl-opt-disable";  // compiled for one short test
#endif
        program_key_ = cache_key({platform, info_.name, info_.driver, options, kernel_source()});
        const std::vector<uint8_t> kept = read_program(program_key_);
        if (!kept.empty() && load(kept, options)) return;
        compile(options);
        keep();
    }

    // False where the driver does not take it, as after an update that kept its version.
    bool load(const std::vector<uint8_t>& binary, const std::string& options) {
        const size_t n_bytes = binary.size();
        const uint8_t* bytes = binary.data();
        Status status = 0, loaded = 0;
        program_ = api_.CreateProgramWithBinary(context_, 1, &id_, &n_bytes, &bytes, &loaded, &status);
        if (status == cl::kSuccess && loaded == cl::kSuccess &&
            api_.BuildProgram(program_, 1, &id_, options.c_str(), nullptr, nullptr) == cl::kSuccess) {
            return true;
        }
        if (program_) api_.ReleaseProgram(program_);
        program_ = nullptr;
        return false;
    }

    void compile(const std::string& options) {
        const std::string source = kernel_source();
        const char* text = source.c_str();
        const size_t n_bytes = source.size();
        Status status = 0;
        program_ = api_.CreateProgramWithSource(context_, 1, &text, &n_bytes, &status);
        check(status, "clCreateProgramWithSource");
        if (api_.BuildProgram(program_, 1, &id_, options.c_str(), nullptr, nullptr) != cl::kSuccess) {
            const std::string log = text_of([&](size_t size, void* to, size_t* needed) {
                return api_.GetProgramBuildInfo(program_, id_, cl::kProgramLog, size, to, needed);
            });
            throw Error{EDGE_NO_DEVICE, "the compiler of " + info_.name + " refuses the kernels: " + log.substr(0, 2000)};
        }
        n_compiled_ = 1;
    }

    void keep() const {
        size_t n_bytes = 0;
        if (api_.GetProgramInfo(program_, cl::kProgramBinarySizes, sizeof n_bytes, &n_bytes, nullptr) != cl::kSuccess) return;
        std::vector<uint8_t> binary(n_bytes);
        uint8_t* bytes = binary.data();
        if (api_.GetProgramInfo(program_, cl::kProgramBinaries, sizeof bytes, &bytes, nullptr) != cl::kSuccess) return;
        write_program(program_key_, binary);
    }

    void close() noexcept {
        if (queue_) api_.Finish(queue_);
        for (const cl::KernelId kernel : kernels_) {
            if (kernel) api_.ReleaseKernel(kernel);
        }
        if (program_) api_.ReleaseProgram(program_);
        for (const cl::Queue queue : {queue_.load(), untimed_queue_}) {
            if (queue) api_.ReleaseCommandQueue(queue);
        }
        if (context_) api_.ReleaseContext(context_);
    }

    // nullptr, and why, where the driver has none.
    cl::Memory create_buffer(uint64_t n_bytes, Status& status) {
#ifdef EDGE_FAULTS
        if (memory_of_gpus() > 0 && allocated_bytes() + n_bytes > memory_of_gpus()) {
            status = cl::kMemoryFailure;
            return nullptr;
        }
#endif
        return api_.CreateBuffer(context_, cl::kReadWrite, static_cast<size_t>(n_bytes), nullptr, &status);
    }

    void* allocate(uint64_t n_bytes) override {
        Status status = 0;
        const cl::Memory memory = create_buffer(n_bytes, status);
        if (status == cl::kSuccess) return memory;
        if (status == cl::kMemoryFailure || status == cl::kOutOfResources || status == cl::kOutOfHostMemory ||
            status == cl::kInvalidBufferSize) {
            throw Error{EDGE_OUT_OF_MEMORY, info_.name + " has no " + mebibytes(n_bytes) + " left, beside the " +
                                                mebibytes(allocated_bytes()) + " that this process holds there" +
                                                "\nhint: lower the context, choose a smaller level, or use backend `cpu`"};
        }
        check(status, "clCreateBuffer");
        return nullptr;
    }

    void release(void* handle) noexcept override { api_.ReleaseMemObject(static_cast<cl::Memory>(handle)); }

    void* share(const void* pages, uint64_t n_bytes) override {
#ifdef EDGE_FAULTS
        pages = pages_read(pages, n_bytes);
        if (!pages) return nullptr;
#endif
        Status status = 0;
        void* const host = const_cast<void*>(pages);  // read only: nobody writes there
        if (import_) {
            const cl::Memory memory = import_(context_, cl::kReadOnly, cl::kHostPages, host, static_cast<size_t>(n_bytes), &status);
            if (status == cl::kSuccess) return memory;
        }
        const cl::Bits flags = cl::kReadOnly | cl::kUseHostPointer;
        const cl::Memory memory = api_.CreateBuffer(context_, flags, static_cast<size_t>(n_bytes), host, &status);
        return status == cl::kSuccess ? memory : nullptr;
    }

    void unshare(void* handle, const void*) noexcept override {
        api_.Finish(queue_);
        release(handle);
    }

    void write(void* handle, uint64_t at, const void* from, uint64_t n_bytes) override {
        check(api_.EnqueueWriteBuffer(queue_, static_cast<cl::Memory>(handle), 1, at, n_bytes, from, 0, nullptr, nullptr),
              "clEnqueueWriteBuffer");
    }

    void read(void* handle, uint64_t at, void* to, uint64_t n_bytes) override {
        check(api_.EnqueueReadBuffer(queue_, static_cast<cl::Memory>(handle), 1, at, n_bytes, to, 0, nullptr, nullptr),
              "clEnqueueReadBuffer");
    }

    cl::DeviceId id_;
    const cl::Api& api_;
    cl::Context context_ = nullptr;
    cl::Import* import_ = nullptr;
    std::atomic<cl::Queue> queue_{nullptr};
    cl::Queue untimed_queue_ = nullptr;  // the one before, once times are kept
    cl::Program program_ = nullptr;
    std::array<cl::KernelId, kKernelNames.size()> kernels_{};
    std::mutex mutex_;
    std::string program_key_;
    int32_t n_compiled_ = 0;
};

}  // namespace

std::shared_ptr<Device> open_opencl(bool only_gpu, bool plain) {
    return std::make_shared<OpenClDevice>(choose_device(only_gpu), plain);
}

}  // namespace edge::gpu
