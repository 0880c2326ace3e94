#include "kernel_times.h"

namespace edge::gpu {
namespace {

constexpr size_t kMostRunning = 2048;  // a driver may keep something for each

}  // namespace

void KernelTimes::keep(bool on) {
    on_ = on;
    running_.clear();
    sums_ = {};
}

void KernelTimes::go_on(const KernelTimes& other) {
    on_ = other.on_;
    sums_ = other.sums();
}

void KernelTimes::begin(Op op, int64_t n_bytes) {
    if (!on_) return;
    op_ = op;
    OpTime& sum = sums_[static_cast<size_t>(op)];
    sum.n_calls += 1;
    sum.bytes += static_cast<uint64_t>(n_bytes);
}

void KernelTimes::add(std::unique_ptr<KernelTime> time) {
    running_.emplace_back(op_, std::move(time));
    if (running_.size() >= kMostRunning) collect();
}

void KernelTimes::collect() const {
    for (const auto& [op, time] : running_) sums_[static_cast<size_t>(op)].nanoseconds += time->nanoseconds();
    running_.clear();
}

OpTimes KernelTimes::sums() const {
    collect();
    return sums_;
}

}  // namespace edge::gpu
