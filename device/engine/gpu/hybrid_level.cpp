#include "hybrid_level.h"

#include <algorithm>
#include <utility>

#include "hand_over.h"

namespace edge::gpu {

HybridLevel::HybridLevel(std::shared_ptr<MappedLevel> own, const Demand& demand, ThreadPool& pool)
    : SessionLevel(std::move(own)),
      demand_(demand),
      pool_(pool),
      host_demand_(host_part(demand)),
      device_demand_(device_part(demand)),
      here_(level, host_demand_, pool),
      there_(level, device_demand_) {}

// Nothing is taken along (can_move).
std::unique_ptr<SessionLevel> HybridLevel::move_to(std::shared_ptr<MappedLevel> next, int32_t) {
    auto moved = std::make_unique<HybridLevel>(std::move(next), demand_, pool_);
    moved->here_.transformer.continue_times(here_.transformer);
    moved->there_.continue_times(there_);
    return moved;
}

const SessionLevel& HybridLevel::prefill() const {
    if (demand_.prefill_on_device) return there_;
    return here_;
}

bool HybridLevel::forward(const int32_t* tokens, int n, int64_t position, const std::atomic<bool>& cancelled) {
    const bool on_device = n > 1 ? demand_.prefill_on_device : demand_.decode_on_device;
    n_here_ = std::min(n_here_, position);  // what came behind it was rewound
    n_there_ = std::min(n_there_, position);
    hand_over(on_device, position);
    current_ = on_device ? static_cast<SessionLevel*>(&there_) : &here_;
    if (!current_->forward(tokens, n, position, cancelled)) return false;
    (on_device ? n_there_ : n_here_) = position + n;
    return true;
}

// What the first n_tokens left to the side that runs next.
void HybridLevel::hand_over(bool to_device, int64_t n_tokens) {
    int64_t& known = to_device ? n_there_ : n_here_;
    if (known == n_tokens) return;
    if (to_device) {
        copy_to_device(here_.memory, there_.memory(), known, n_tokens);
    } else {
        copy_from_device(there_.memory(), here_.memory, known, n_tokens);
    }
    known = n_tokens;
}

void HybridLevel::time_ops(bool on) {
    here_.time_ops(on);
    there_.time_ops(on);
}

OpTimes HybridLevel::op_times() const {
    OpTimes sum = here_.op_times();
    const OpTimes other = there_.op_times();
    for (size_t i = 0; i < sum.size(); ++i) {
        sum[i].n_calls += other[i].n_calls;
        sum[i].nanoseconds += other[i].nanoseconds;
        sum[i].bytes += other[i].bytes;
    }
    return sum;
}

}  // namespace edge::gpu
