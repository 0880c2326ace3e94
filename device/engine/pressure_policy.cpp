#include "pressure_policy.h"

#include <algorithm>

namespace edge {

int PressurePolicy::next(double now_s, int level, int top, const Reading& reading) {
    const uint64_t low = std::clamp<uint64_t>(reading.limit / 16, 16 << 20, 256 << 20);
    if (reading.room < low || (reading.pressed && reading.room < 4 * low)) {
        calm_since_s_ = -1;
        const bool settling = now_s - last_down_s_ < kSettle && reading.room >= low / 4;
        if (level == 0 || settling) return level;
        if (now_s - last_up_s_ < kRelapse) hold_s_ = std::min(2 * hold_s_, kLongestHold);
        last_down_s_ = now_s;
        last_up_s_ = -1e9;
        return down(level, reading, low);
    }
    if (reading.room < 2 * low) {
        calm_since_s_ = -1;
        return level;
    }
    if (calm_since_s_ < 0) calm_since_s_ = now_s;
    if (now_s - last_up_s_ > 2 * kRelapse && last_up_s_ > 0) hold_s_ = kHold;
    if (level >= top || now_s - calm_since_s_ < hold_s_) return level;
    const int found = up(level, top, reading, low);
    if (found > level) {
        last_up_s_ = now_s;
        calm_since_s_ = now_s;
    }
    return found;
}

// Bytes that one level takes beyond another; 0 where it takes less.
uint64_t PressurePolicy::difference(int larger, int smaller) const {
    const uint64_t a = needs_[static_cast<size_t>(larger)], b = needs_[static_cast<size_t>(smaller)];
    return a > b ? a - b : 0;
}

int PressurePolicy::down(int level, const Reading& reading, uint64_t low) const {
    if (reading.room < low / 4) return 0;
    const uint64_t wanted = std::max(needs_[static_cast<size_t>(level)] / 8, low + low / 2 - std::min(reading.room, low + low / 2));
    int found = level - 1;
    while (found > 0 && difference(level, found) < wanted) --found;
    return found;
}

int PressurePolicy::up(int level, int top, const Reading& reading, uint64_t low) const {
    int found = top;
    while (found > level && difference(found, level) > reading.room - 2 * low) --found;
    return found;
}

}  // namespace edge
