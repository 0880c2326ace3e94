// Where the time of a forward pass on a GPU goes: what its queue says of each kernel, summed by kind of operation.
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "device.h"
#include "op_times.h"

namespace edge::gpu {

class KernelTimes {
public:
    // From zero; or no longer.
    void keep(bool on);
    bool are_kept() const { return on_; }

    // Goes on with the sums of other ones, that these replace.
    void go_on(const KernelTimes& other);

    // An operation begins: kernels that are added from now on are its own. `n_bytes`: of weights and cache that it reads.
    void begin(Op op, int64_t n_bytes = 0);
    void add(std::unique_ptr<KernelTime> time);

    // Waits for all kernels.
    OpTimes sums() const;

private:
    void collect() const;

    bool on_ = false;
    Op op_ = Op::embed;
    mutable OpTimes sums_{};
    mutable std::vector<std::pair<Op, std::unique_ptr<KernelTime>>> running_;
};

}  // namespace edge::gpu
