// Where the time of a forward pass goes: one sum per kind of operation, kept only while somebody asked for it.
#pragma once
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace edge {

enum class Op { embed, norm, qkv, store, attention, merge, o, gate_up, activate, down, head };
constexpr std::array<const char*, 11> kOpNames = {"embed", "norm", "qkv", "store", "attention", "merge",
                                                  "o", "gate_up", "activate", "down", "head"};

struct OpTime {
    uint64_t n_calls = 0, nanoseconds = 0;
    uint64_t bytes = 0;  // of weights and cache that the calls read, each once per call
};
using OpTimes = std::array<OpTime, kOpNames.size()>;

// Adds its own life to an operation's sum; does nothing where `times` is nullptr.
class OpTimer {
public:
    OpTimer(OpTimes* times, Op op, int64_t bytes = 0) : time_(times ? &(*times)[static_cast<size_t>(op)] : nullptr) {
        if (!time_) return;
        time_->n_calls += 1;
        time_->bytes += static_cast<uint64_t>(bytes);
        begin_ = Clock::now();
    }
    ~OpTimer() {
        if (!time_) return;
        const auto passed = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin_);
        time_->nanoseconds += static_cast<uint64_t>(passed.count());
    }
    OpTimer(const OpTimer&) = delete;
    OpTimer& operator=(const OpTimer&) = delete;

private:
    using Clock = std::chrono::steady_clock;
    OpTime* time_;
    Clock::time_point begin_;
};

}  // namespace edge
