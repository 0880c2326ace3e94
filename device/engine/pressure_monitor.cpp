#include "pressure_monitor.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "bytes.h"
#include "memory.h"

namespace edge {
namespace {

constexpr int kOftenMs = 50, kSeldomMs = 250;
constexpr uint64_t kOftenShare = 5;            // look often when less than one of so many bytes is left,
constexpr uint64_t kOftenBytes = 1024 << 20;   // and no more than this

}  // namespace

PressureMonitor::PressureMonitor(Levels levels)
    : levels_(std::move(levels)), policy_(levels_.needs), thread_([this] { watch(); }) {}

PressureMonitor::~PressureMonitor() {
    stop_ = true;
    events_.wake();
    thread_.join();
}

void PressureMonitor::watch() {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    while (!stop_) {
        const bool pressed = events_.wait(is_short_ ? kOftenMs : kSeldomMs);
        if (stop_) return;
        try {
            look(std::chrono::duration<double>(Clock::now() - begin).count(), pressed);
        } catch (const std::exception&) {
            continue;  // the level stays: it is tried again
        }
    }
}

void PressureMonitor::look(double now_s, bool pressed) {
    const MemoryRoom room = measure_room();
    is_short_ = room.bytes < std::min(room.limit / kOftenShare, kOftenBytes);
    const int level = levels_.now(), wanted = policy_.next(now_s, level, levels_.top(), {room.bytes, room.limit, pressed});
    if (wanted == level) return;
    levels_.change(wanted, room.name + " leaves " + mebibytes(room.bytes) + (pressed ? ", and the system is short of memory" : ""));
}

}  // namespace edge
