#include "lost_pages.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <mutex>

namespace edge {
namespace {

struct Place {
    std::atomic<uintptr_t> begin{0};  // 0: free. Written last, so that the handler sees a whole place
    std::atomic<uintptr_t> end{0};
    std::atomic<std::atomic<bool>*> lost{nullptr};
};
std::array<Place, 4096> places;  // the handler reads them without a lock: a place that is read from is not given up meanwhile
std::mutex changing;
struct sigaction before;
uintptr_t page_bytes;

// In a signal handler: only atomics and system calls.
bool replace(uintptr_t address) {
    for (Place& place : places) {
        const uintptr_t begin = place.begin.load(std::memory_order_acquire), end = place.end.load(std::memory_order_relaxed);
        if (begin == 0 || address < begin || address >= end) continue;
        const uintptr_t first = address / page_bytes * page_bytes;
        const uintptr_t length = (end - first + page_bytes - 1) / page_bytes * page_bytes;
        void* zeros = mmap(reinterpret_cast<void*>(first), length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (zeros == MAP_FAILED) return false;
        place.lost.load(std::memory_order_relaxed)->store(true, std::memory_order_release);
        return true;
    }
    return false;
}

void handle(int number, siginfo_t* info, void* context) {
    if (info->si_code > 0 && replace(reinterpret_cast<uintptr_t>(info->si_addr))) return;  // not one that somebody sent
    if ((before.sa_flags & SA_SIGINFO) != 0) return before.sa_sigaction(number, info, context);
    if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) return before.sa_handler(number);
    sigaction(SIGBUS, &before, nullptr);  // and what raised it raises it again
}

void install() {
    page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action{};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before);
}

}  // namespace

bool watch_pages(const void* pages, size_t n_bytes, std::atomic<bool>& lost) {
    static std::once_flag installed;
    std::call_once(installed, install);
    const std::lock_guard lock(changing);
    for (Place& place : places) {
        if (place.begin.load(std::memory_order_relaxed) != 0) continue;
        place.end.store(reinterpret_cast<uintptr_t>(pages) + n_bytes, std::memory_order_relaxed);
        place.lost.store(&lost, std::memory_order_relaxed);
        place.begin.store(reinterpret_cast<uintptr_t>(pages), std::memory_order_release);
        return true;
    }
    return false;
}

void forget_pages(const void* pages) {
    const std::lock_guard lock(changing);
    for (Place& place : places) {
        if (place.begin.load(std::memory_order_relaxed) == reinterpret_cast<uintptr_t>(pages)) place.begin = 0;
    }
}

}  // namespace edge
