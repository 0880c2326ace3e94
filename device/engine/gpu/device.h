// A GPU as the forward pass sees it: buffers, kernels, and one queue in which everything happens in order.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "edge.h"

namespace edge::gpu {

class Device;

// Memory of a device, given back when this goes; the device outlives it.
class Buffer {
public:
    Buffer() = default;  // of no device
    Buffer(Device& device, uint64_t n_bytes);  // throws EDGE_OUT_OF_MEMORY
    // These pages of the host, which kernels read where they lie; they outlive this. Throws EDGE_OUT_OF_MEMORY where the driver does
    // not do that.
    static Buffer shared(Device& device, const void* pages, uint64_t n_bytes);
    ~Buffer() { clear(); }
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        swap(other);
        return *this;
    }

    // Both return when the bytes on this side are free again, or there. Throw EDGE_IO.
    void write(uint64_t at, const void* from, uint64_t n_bytes) const;
    void read(uint64_t at, void* to, uint64_t n_bytes) const;

    void* handle() const { return handle_; }
    uint64_t n_bytes() const { return n_bytes_; }
    const void* pages() const { return pages_; }  // of the host, where they are shared

private:
    void clear() noexcept;
    void swap(Buffer& other) noexcept;

    Device* device_ = nullptr;
    void* handle_ = nullptr;
    uint64_t n_bytes_ = 0;
    const void* pages_ = nullptr;  // of the host
};

// What a buffer of this size takes of a device.
uint64_t buffer_bytes(uint64_t n_bytes);

enum class Kernel {
    embed, matvec, matmul, normalize, add_bias, activate, merge, store, attention_q8, attention_f16, softcap_rows, choose, choose_last,
    steps, conv, scan, gate
};
constexpr std::array<const char*, 17> kKernelNames = {
    "edge_embed", "edge_matvec", "edge_matmul", "edge_normalize", "edge_add_bias", "edge_activate", "edge_merge",
    "edge_store", "edge_attention_q8", "edge_attention_f16", "edge_softcap_rows", "edge_choose", "edge_choose_last",
    "edge_steps", "edge_conv", "edge_scan", "edge_gate"};

inline constexpr int kGroup = 64;  // work items of every work group

// One argument of a kernel.
struct Argument {
    Argument(const Buffer& buffer) : buffer(&buffer), integer(0) {}  // NOLINT: arguments are written as they are
    Argument(int32_t value) : integer(value) {}                      // NOLINT
    Argument(float value) : real(value) {}                           // NOLINT

    const Buffer* buffer = nullptr;
    union {
        int32_t integer;
        float real;
    };
};

struct DeviceInfo {
    edge_backend backend = EDGE_BACKEND_CPU;
    std::string name, driver;
    bool is_gpu = false;             // not a processor that runs OpenCL
    bool shares_memory = false;      // with the host
    bool uses_extensions = false;    // of OpenCL C 1.2, in its kernels
    uint64_t memory_bytes = 0;
    uint64_t buffer_bytes = 0;       // the largest buffer
};

// How long a kernel took.
class KernelTime {
public:
    KernelTime() = default;
    virtual ~KernelTime() = default;
    KernelTime(const KernelTime&) = delete;
    KernelTime& operator=(const KernelTime&) = delete;

    virtual uint64_t nanoseconds() = 0;  // waits for it
};

class Device {
public:
    virtual ~Device() = default;
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    // Puts a kernel into the queue, with work groups (x, y). Any thread.
    virtual void launch(Kernel kernel, int64_t x, int64_t y, std::initializer_list<Argument> arguments) = 0;

    // The same, and keeps its time. The device must outlive it.
    virtual std::unique_ptr<KernelTime> launch_timed(Kernel kernel, int64_t x, int64_t y, std::initializer_list<Argument> arguments) = 0;

    // A name for what this device's programs were compiled from and for, and 0 unless this object compiled them.
    virtual const std::string& program_key() const = 0;
    virtual int32_t n_compiled() const = 0;

    const DeviceInfo& info() const { return info_; }
    uint64_t allocated_bytes() const { return allocated_bytes_; }
    uint64_t read_bytes() const { return read_bytes_; }  // that came back to the host so far

protected:
    Device() = default;
    DeviceInfo info_;

private:
    friend class Buffer;
    virtual void* allocate(uint64_t n_bytes) = 0;
    virtual void release(void* handle) noexcept = 0;
    // nullptr: not possible. What was shared is given back when no kernel uses it any more.
    virtual void* share(const void* pages, uint64_t n_bytes) = 0;
    virtual void unshare(void* handle, const void* pages) noexcept = 0;
    virtual void write(void* handle, uint64_t at, const void* from, uint64_t n_bytes) = 0;
    virtual void read(void* handle, uint64_t at, void* to, uint64_t n_bytes) = 0;

    std::atomic<uint64_t> allocated_bytes_{0}, read_bytes_{0};
};

// The device of a backend (opencl or cuda) after its self-test; all models of a process share it. `only_gpu`: a processor that
// runs OpenCL is not taken. Throws EDGE_NO_DEVICE with the reason.
std::shared_ptr<Device> open_device(edge_backend backend, bool only_gpu);

const char* backend_name(edge_backend backend);

#ifdef EDGE_FAULTS
// For tests: each OpenCL device is a GPU with so much memory of its own. A device keeps what it said when it was opened, but has no
// more to give than this. 0: as they are.
void set_memory_of_gpus(uint64_t n_bytes);
uint64_t memory_of_gpus();
// Of pages of the host, those that OpenCL devices read in their place; nullptr: they refuse them. No function: the same.
using PagesRead = const void*(const void* pages, uint64_t n_bytes);
void set_pages_read(PagesRead* read);
const void* pages_read(const void* pages, uint64_t n_bytes);
// The extensions of OpenCL devices. Empty: as they are.
void set_extensions(const std::string& names);
const std::string& extensions_of_gpus();
// What stands for clImportMemoryARM (opencl_api.h) on devices with that extension. nullptr: the driver's own.
void set_import(void* function);
void* import_of_gpus();
#endif

}  // namespace edge::gpu
