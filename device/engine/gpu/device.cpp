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

void Buffer::clear() noexcept {
    if (!device_) return;
    device_->release(handle_);
    device_->allocated_bytes_ -= n_bytes_;
}

void Buffer::swap(Buffer& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(handle_, other.handle_);
    std::swap(n_bytes_, other.n_bytes_);
}

void Buffer::write(uint64_t at, const void* from, uint64_t n_bytes) const {
    if (n_bytes > 0) device_->write(handle_, at, from, n_bytes);
}

void Buffer::read(uint64_t at, void* to, uint64_t n_bytes) const {
    if (n_bytes > 0) device_->read(handle_, at, to, n_bytes);
}

namespace {

std::shared_ptr<Device> open_tested(edge_backend backend, bool only_gpu) {
    if constexpr (EDGE_STATIC) {
        throw Error{EDGE_NO_DEVICE, std::string("this program is static: it cannot load the driver that backend `") + backend_name(backend) +
                                        "` needs\nhint: use backend `cpu`, or a program with a loader (docs/targets.md; for Android the "
                                        "NDK builds one)"};
    }
    std::shared_ptr<Device> device = backend == EDGE_BACKEND_CUDA ? open_cuda() : open_opencl(only_gpu);
    require_self_test(*device);
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

const char* backend_name(edge_backend backend) {
    constexpr const char* kNames[] = {"cpu", "auto", "opencl", "cuda"};
    return kNames[backend];
}

}  // namespace edge::gpu
