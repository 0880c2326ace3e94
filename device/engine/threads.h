// A small pool for work that comes in short bursts, many times per token.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace edge {

// The calling thread is number 0 and works too. A thread begins a burst with most of what it usually does of one, so that it
// reads one long stretch of memory whether its core is a fast or a slow one; the rest goes in small ranges to threads as they
// come free. A burst ends when what was taken is done: a worker that is asleep or off its core is not waited for. Between
// bursts workers spin for a moment (the next one usually follows within microseconds), then sleep in the kernel, so an idle
// program costs nothing. A pool serves one caller at a time.
class ThreadPool {
public:
    // `pin`: each worker stays on a core of its own; the caller's thread is left alone.
    explicit ThreadPool(int n_threads, bool pin = false);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return static_cast<int>(workers_.size()) + 1; }

    // Runs work(begin, end, thread) on ranges that cover [0, total) once, at least `step` long but for the last one, and
    // returns when all are done. What fits one step wakes nobody. `work` must not throw.
    template <typename Work>
    void share(int64_t total, int64_t step, Work&& work) {
        if (total <= step || workers_.empty()) {
            if (total > 0) work(int64_t{0}, total, 0);
            return;
        }
        const auto call = [](void* context, int64_t begin, int64_t end, int thread) {
            (*static_cast<std::remove_reference_t<Work>*>(context))(begin, end, thread);
        };
        run(call, &work, total, step);
    }

    // Runs work(item, thread) for all items of [0, n_items), at least `step` of them at a time.
    template <typename Work>
    void each(int64_t n_items, Work&& work, int64_t step = 1) {
        share(n_items, step, [&](int64_t begin, int64_t end, int thread) {
            for (int64_t item = begin; item < end; ++item) work(item, thread);
        });
    }

private:
    using Function = void(void* context, int64_t begin, int64_t end, int thread);
    void run(Function* function, void* context, int64_t total, int64_t step);
    void stop();
    void take_ranges(int thread);
    void serve(int thread);

    // What a worker needs to join a burst lies in one cache line. The gate holds the number of the burst, whether it may be
    // joined, and how many workers are inside; the other fields change only while it is shut and nobody is inside.
    struct alignas(64) Burst {
        std::atomic<uint32_t> gate{0};
        std::atomic<int64_t> next{0};  // the first item that nobody took
        int64_t total = 0, step = 1;
        Function* function = nullptr;
        void* context = nullptr;
    };
    Burst burst_;
    struct alignas(64) Share {
        float usual;  // of a burst; only its own thread reads and writes it
    };
    std::vector<Share> shares_;
    std::atomic<bool> stop_{false};
    std::vector<std::thread> workers_;
};

// Physical cores that this process may use: its CPU affinity with hyperthread siblings counted once, and no more than the
// control group's CPU quota, rounded up. At least 1.
int usable_cores();

// Microseconds of a burst in which the threads do nothing but meet, as the median of many: what each product of a token pays
// at most. (An empty burst would be over before a worker joins it.)
double measure_burst_us(ThreadPool& pool);

}  // namespace edge
