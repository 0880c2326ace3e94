#include "device.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "bytes.h"
#include "cuda_device.h"
#include "errors.h"
#include "opencl_device.h"
#include "self_test.h"

namespace edge::gpu {

uint64_t buffer_bytes(uint64_t n_bytes) { return align_bytes(std::max<uint64_t>(n_bytes, 1), 64); }

Buffer::Buffer(Device& device, uint64_t n_bytes) : n_bytes_(gpu::buffer_bytes(n_bytes)) {
    if (n_bytes_ > device.info().buffer_bytes) {
        throw Error{EDGE_OUT_OF_MEMORY, "a buffer of " + mebibytes(n_bytes_) + " is needed, " + device.info().name + " allows " +
                                            mebibytes(device.info().buffer_bytes) +
                                            "\nhint: lower the context, choose a smaller level, or use backend `cpu`"};
    }
    handle_ = device.allocate(n_bytes_);
    device_ = &device;
    device.allocated_bytes_ += n_bytes_;
}

Buffer Buffer::shared(Device& device, const void* pages, uint64_t n_bytes) {
    Buffer buffer;
    if (n_bytes <= device.info().buffer_bytes) buffer.handle_ = device.share(pages, n_bytes);
    if (!buffer.handle_) {
        throw Error{EDGE_OUT_OF_MEMORY, device.info().name + " does not share " + mebibytes(n_bytes) +
                                            " of weights with the CPU\nhint: choose a smaller level, or use one backend for all"};
    }
    buffer.device_ = &device;
    buffer.n_bytes_ = n_bytes;
    buffer.pages_ = pages;
    return buffer;
}

void Buffer::clear() noexcept {
    if (!device_) return;
    if (pages_) return device_->unshare(handle_, pages_);
    device_->release(handle_);
    device_->allocated_bytes_ -= n_bytes_;
}

void Buffer::swap(Buffer& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(handle_, other.handle_);
    std::swap(n_bytes_, other.n_bytes_);
    std::swap(pages_, other.pages_);
}

void Buffer::write(uint64_t at, const void* from, uint64_t n_bytes) const {
    if (n_bytes > 0) device_->write(handle_, at, from, n_bytes);
}

void Buffer::read(uint64_t at, void* to, uint64_t n_bytes) const {
    if (n_bytes == 0) return;
    device_->read(handle_, at, to, n_bytes);
    device_->read_bytes_ += n_bytes;
}

namespace {

#ifdef EDGE_FAULTS
std::atomic<uint64_t> limit{0};
PagesRead* read_instead = nullptr;
void* import_function = nullptr;
std::string extensions;
#endif

std::shared_ptr<Device> open_tested(edge_backend backend, bool only_gpu) {
    if constexpr (EDGE_STATIC) {
        throw Error{EDGE_NO_DEVICE, std::string("this program is static: it cannot load the driver that backend `") + backend_name(backend) +
                                        "` needs\nhint: use backend `cpu`, or a program with a loader (docs/targets.md; for Android the "
                                        "NDK builds one)"};
    }
    std::shared_ptr<Device> device;
    try {
        device = backend == EDGE_BACKEND_CUDA ? open_cuda() : open_opencl(only_gpu, false);
        require_self_test(*device);
    } catch (const Error&) {
        if (backend == EDGE_BACKEND_CUDA || (device && !device->info().uses_extensions)) throw;
        device = open_opencl(only_gpu, true);
        require_self_test(*device);
    }
    return device;
}

}  // namespace

std::shared_ptr<Device> open_device(edge_backend backend, bool only_gpu) {
    static std::mutex mutex;
    static std::weak_ptr<Device> open[2];  // the last model that is closed closes the device
    const std::lock_guard lock(mutex);
    std::weak_ptr<Device>& known = open[backend == EDGE_BACKEND_CUDA];
    std::shared_ptr<Device> device = known.lock();
    if (device && (device->info().is_gpu || !only_gpu)) return device;
    device = open_tested(backend, only_gpu);
    known = device;
    return device;
}

#ifdef EDGE_FAULTS
void set_memory_of_gpus(uint64_t n_bytes) { limit = n_bytes; }
uint64_t memory_of_gpus() { return limit; }
void set_pages_read(PagesRead* read) { read_instead = read; }
const void* pages_read(const void* pages, uint64_t n_bytes) { return read_instead ? read_instead(pages, n_bytes) : pages; }
void set_extensions(const std::string& names) { extensions = names; }
const std::string& extensions_of_gpus() { return extensions; }
void set_import(void* function) { import_function = function; }
void* import_of_gpus() { return import_function; }
#endif

const char* backend_name(edge_backend backend) {
    constexpr const char* kNames[] = {"cpu", "auto", "opencl", "cuda"};
    return kNames[backend];
}

}  // namespace edge::gpu
