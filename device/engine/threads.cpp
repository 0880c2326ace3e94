#include "threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>

namespace edge {
namespace {

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// The fields of the gate. Burst numbers wrap around; they only tell a worker that it has seen a burst already.
constexpr uint32_t kInside = (1u << 10) - 1;
constexpr uint32_t kOpen = 1u << 10;
constexpr uint32_t kNumber = 1u << 11;

constexpr auto kSpin = std::chrono::microseconds(200);

// Waits until done(value) holds: spins for a while, then calls idle(value) between looks. Returns the value.
template <typename Done, typename Idle>
uint32_t spin_until(const std::atomic<uint32_t>& gate, Done&& done, Idle&& idle) {
    using clock = std::chrono::steady_clock;
    for (int i = 0; i < 64; ++i) {
        const uint32_t value = gate.load(std::memory_order_acquire);
        if (done(value)) return value;
        relax();
    }
    for (const auto deadline = clock::now() + kSpin; clock::now() < deadline;) {
        for (int i = 0; i < 64; ++i) {
            const uint32_t value = gate.load(std::memory_order_acquire);
            if (done(value)) return value;
            relax();
        }
    }
    for (;;) {
        const uint32_t value = gate.load(std::memory_order_acquire);
        if (done(value)) return value;
        idle(value);
    }
}

std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

// CPUs per period of the control group, or 0 where there is no quota.
int cpu_quota() {
    const std::string line = first_line("/sys/fs/cgroup/cpu.max");
    double quota = 0, period = 0;
    if (std::sscanf(line.c_str(), "%lf %lf", &quota, &period) != 2) {
        quota = std::atof(first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").c_str());
        period = std::atof(first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us").c_str());
    }
    return quota > 0 && period > 0 ? static_cast<int>(std::min(4096.0, quota / period + 0.999)) : 0;
}

// One CPU of each physical core that this process may use.
std::vector<int> core_cpus() {
    std::vector<int> cpus;
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return cpus;
    std::set<std::string> cores;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
        const std::string siblings = first_line(folder + "thread_siblings_list");
        if (cores.insert(siblings.empty() ? "cpu" + std::to_string(cpu) : siblings).second) cpus.push_back(cpu);
    }
    return cpus;
}

// A wish: where the system refuses, the thread runs anywhere.
void pin_thread(std::thread& thread, int cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(thread.native_handle(), sizeof one, &one);
}

}  // namespace

ThreadPool::ThreadPool(int n_threads, bool pin)
    : shares_(static_cast<size_t>(n_threads), {1.0f / static_cast<float>(n_threads)}) {
    workers_.reserve(static_cast<size_t>(n_threads - 1));
    const std::vector<int> cpus = pin ? core_cpus() : std::vector<int>{};
    try {
        for (int i = 1; i < n_threads; ++i) {
            workers_.emplace_back([this, i] { serve(i); });
            if (static_cast<size_t>(i) < cpus.size()) pin_thread(workers_.back(), cpus[static_cast<size_t>(i)]);
        }
    } catch (...) {  // one could not be started: those that were must end before they are forgotten
        stop();
        throw;
    }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
    stop_.store(true, std::memory_order_relaxed);
    burst_.gate.fetch_add(kNumber, std::memory_order_seq_cst);
    burst_.gate.notify_all();
    for (auto& worker : workers_) worker.join();
}

void ThreadPool::run(Function* function, void* context, int64_t total, int64_t step) {
    burst_.function = function;
    burst_.context = context;
    burst_.total = total;
    burst_.step = step;
    burst_.next.store(0, std::memory_order_relaxed);
    // Nobody changes a shut gate. A full barrier: the count of sleepers is read behind it.
    const uint32_t number = (burst_.gate.load(std::memory_order_relaxed) & ~(kNumber - 1)) + kNumber;
    burst_.gate.exchange(number | kOpen, std::memory_order_seq_cst);
    burst_.gate.notify_all();
    take_ranges(0);
    burst_.gate.fetch_and(~kOpen, std::memory_order_acq_rel);
    // A worker inside has lost its core if this takes long; ours may be the one that it waits for.
    spin_until(burst_.gate, [](uint32_t gate) { return (gate & kInside) == 0; }, [](uint32_t) { std::this_thread::yield(); });
}

void ThreadPool::take_ranges(int thread) {
    constexpr float kFirst = 15.0f / 16;   // of the usual share, taken at once
    constexpr float kMemory = 63.0f / 64;  // of the usual share, kept after a burst
    constexpr int64_t kTelling = 8;        // steps of a burst that tells how fast its threads are
    const int64_t total = burst_.total, n_threads = size();
    float& usual = shares_[static_cast<size_t>(thread)].usual;
    int64_t wanted = static_cast<int64_t>(kFirst * usual * static_cast<float>(total)), taken = 0;
    for (int64_t begin = burst_.next.load(std::memory_order_relaxed); begin < total;) {
        const int64_t left = total - begin;
        const int64_t end = begin + std::min(left, std::max(burst_.step, wanted));
        if (!burst_.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
        burst_.function(burst_.context, begin, end, thread);
        taken += end - begin;
        begin = burst_.next.load(std::memory_order_relaxed);
        wanted = (total - begin) / (2 * n_threads);
    }
    if (total < kTelling * burst_.step) return;
    usual = kMemory * usual + (1 - kMemory) * static_cast<float>(taken) / static_cast<float>(total);
}

void ThreadPool::serve(int thread) {
    for (uint32_t seen = 0;;) {
        uint32_t gate = spin_until(
            burst_.gate,
            [this, seen](uint32_t value) {
                return stop_.load(std::memory_order_relaxed) || ((value & kOpen) != 0 && value / kNumber != seen);
            },
            [this](uint32_t value) { burst_.gate.wait(value, std::memory_order_acquire); });
        if (stop_.load(std::memory_order_relaxed)) return;
        if (!burst_.gate.compare_exchange_strong(gate, gate + 1, std::memory_order_acq_rel)) continue;
        seen = gate / kNumber;
        take_ranges(thread);
        burst_.gate.fetch_sub(1, std::memory_order_release);
    }
}

int usable_cores() {
    const int n_cores = std::max(1, static_cast<int>(core_cpus().size()));
    const int quota = cpu_quota();
    return quota > 0 ? std::min(n_cores, quota) : n_cores;
}

double measure_burst_us(ThreadPool& pool) {
    using clock = std::chrono::steady_clock;
    constexpr int kSamples = 101, kBursts = 100;
    std::vector<double> times;
    for (int sample = 0; sample < kSamples; ++sample) {
        const auto begin = clock::now();
        for (int i = 0; i < kBursts; ++i) {
            std::atomic<int> n_present{0};
            pool.each(pool.size(), [&](int64_t, int) {
                ++n_present;
                for (int look = 0; n_present < pool.size(); ++look) look < 10'000 ? relax() : std::this_thread::yield();
            });
        }
        times.push_back(std::chrono::duration<double, std::micro>(clock::now() - begin).count() / kBursts);
    }
    std::nth_element(times.begin(), times.begin() + kSamples / 2, times.end());
    return times[kSamples / 2];
}

}  // namespace edge
