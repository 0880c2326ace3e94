#include "threads.h"

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

// Waits until `value` is no longer `old`: spins for about 50 microseconds, then sleeps.
uint32_t wait_change(const std::atomic<uint32_t>& value, uint32_t old) {
    using clock = std::chrono::steady_clock;
    const auto deadline = clock::now() + std::chrono::microseconds(50);
    do {
        for (int i = 0; i < 64; ++i) {
            const uint32_t now = value.load(std::memory_order_acquire);
            if (now != old) return now;
            relax();
        }
    } while (clock::now() < deadline);
    uint32_t now;
    while ((now = value.load(std::memory_order_acquire)) == old) value.wait(old, std::memory_order_acquire);
    return now;
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

}  // namespace

ThreadPool::ThreadPool(int n_threads) {
    workers_.reserve(n_threads - 1);
    for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { serve(i); });
}

ThreadPool::~ThreadPool() {
    stop_.store(true, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    for (auto& worker : workers_) worker.join();
}

void ThreadPool::run_erased(Function* function, void* context) {
    if (workers_.empty()) return function(context, 0);
    function_ = function;
    context_ = context;
    running_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    function(context, 0);
    for (uint32_t left; (left = running_.load(std::memory_order_acquire)) != 0;) wait_change(running_, left);
}

void ThreadPool::serve(int thread) {
    for (uint32_t round = 0;;) {
        round = wait_change(round_, round);
        if (stop_.load(std::memory_order_relaxed)) return;
        function_(context_, thread);
        if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
    }
}

int usable_cores() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
    std::set<std::string> cores;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
        const std::string siblings = first_line(folder + "thread_siblings_list");
        cores.insert(siblings.empty() ? "cpu" + std::to_string(cpu) : siblings);
    }
    const int n_cores = std::max(1, static_cast<int>(cores.size()));
    const int quota = cpu_quota();
    return quota > 0 ? std::min(n_cores, quota) : n_cores;
}

}  // namespace edge
