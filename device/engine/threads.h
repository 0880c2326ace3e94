// A small pool for work that comes in short bursts, many times per token.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace edge {

// The calling thread is number 0. Waiting threads spin for a moment (the next burst usually follows within microseconds),
// then sleep in the kernel, so an idle program costs nothing. A pool serves one caller at a time.
class ThreadPool {
public:
    explicit ThreadPool(int n_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return static_cast<int>(workers_.size()) + 1; }

    // Runs work(thread) on every thread and returns when all are done. `work` must not throw.
    template <typename Work>
    void run(Work&& work) {
        run_erased([](void* context, int thread) { (*static_cast<Work*>(context))(thread); }, &work);
    }

    // Runs work(item, thread) for all items; thread t takes t, t + size, ... so that rising costs spread evenly.
    template <typename Work>
    void each(int64_t n_items, Work&& work) {
        if (n_items == 1) return work(int64_t{0}, 0);
        run([&](int thread) {
            for (int64_t item = thread; item < n_items; item += size()) work(item, thread);
        });
    }

private:
    using Function = void(void* context, int thread);
    void run_erased(Function* function, void* context);
    void serve(int thread);

    std::vector<std::thread> workers_;
    Function* function_ = nullptr;
    void* context_ = nullptr;
    alignas(64) std::atomic<uint32_t> round_{0};    // raised to start work; bursts are numbered so none is missed
    alignas(64) std::atomic<uint32_t> running_{0};  // workers that have not finished this round
    std::atomic<bool> stop_{false};
};

// Physical cores that this process may use: its CPU affinity with hyperthread siblings counted once, and no more than the
// control group's CPU quota, rounded up. At least 1.
int usable_cores();

}  // namespace edge
