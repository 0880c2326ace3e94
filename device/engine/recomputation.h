// A conversation that is computed again at another level, beside the session that goes on meanwhile.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "session_level.h"
#include "threads.h"

namespace edge {

// One thread of its own, with caches of its own: the session's threads and what it remembers are left alone.
class Recomputation {
public:
    // Begins with `tokens`, which are copied. Throws when there is no memory, or no thread, for it.
    Recomputation(std::shared_ptr<MappedLevel> level, const Demand& demand, std::span<const int32_t> tokens);
    ~Recomputation();  // waits for the layer that it is in
    Recomputation(const Recomputation&) = delete;
    Recomputation& operator=(const Recomputation&) = delete;

    // Of the conversation's tokens, how many it was given. They are all computed once `is_done`.
    int32_t n_tokens() const { return static_cast<int32_t>(tokens_.size()); }
    bool is_done() const { return done_; }

    // Only when it is done. More tokens behind those that it has. Throws when no thread can be started.
    void go_on(std::span<const int32_t> tokens);
    // The level with everything computed, now for the caller's threads. nullptr when pages of its weights were lost.
    std::unique_ptr<CpuLevel> take(ThreadPool& pool);

private:
    void run() noexcept;

    std::vector<int32_t> tokens_;
    int32_t n_computed_ = 0;  // the thread's own while it runs
    ThreadPool alone_{1};
    std::unique_ptr<CpuLevel> level_;
    std::atomic<bool> stop_{false}, done_{false};
    std::thread thread_;
};

}  // namespace edge
