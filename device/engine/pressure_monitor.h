// A thread that follows how much memory is left, and gives up levels before the system gives up the process.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "pressure_events.h"
#include "pressure_policy.h"

namespace edge {

class PressureMonitor {
public:
    struct Levels {
        std::vector<uint64_t> needs;          // bytes of each level
        std::function<int()> now, top;        // the level that runs, and the largest that may
        // Runs this level from now on; `why` is one line. May throw: then the level stays.
        std::function<void(int level, const std::string& why)> change;
    };

    explicit PressureMonitor(Levels levels);
    ~PressureMonitor();
    PressureMonitor(const PressureMonitor&) = delete;
    PressureMonitor& operator=(const PressureMonitor&) = delete;

private:
    void watch();
    void look(double now_s, bool pressed);

    Levels levels_;
    PressurePolicy policy_;
    PressureEvents events_;
    bool is_short_ = false;  // look more often
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

}  // namespace edge
