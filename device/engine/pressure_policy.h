// Which level to run while memory gets short and comes back: arithmetic on what was read, without a clock of its own.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace edge {

class PressurePolicy {
public:
    struct Reading {
        uint64_t room;   // bytes that may still be taken,
        uint64_t limit;  // of so many
        bool pressed;    // the system told that tasks wait for memory
    };

    // needs: bytes of each level, ascending.
    explicit PressurePolicy(std::vector<uint64_t> needs) : needs_(std::move(needs)) {}

    // The level to run from now on, at most `top`. Seconds never go back.
    //
    // Down: when room is below the low mark (1/16 of the limit, within 16 and 256 MiB), or below four times as much while tasks
    // wait for memory (with more room it is others that wait), to the largest level that brings room above the mark by half, and
    // frees an eighth at least; to level 0 when a quarter of the mark is left.
    // Up: when room was above twice the low mark for `hold_s`, to the largest level that leaves as much. Whoever goes up and
    // has to go down again within half a minute waits twice as long the next time.
    int next(double now_s, int level, int top, const Reading& reading);

    double hold_s() const { return hold_s_; }

private:
    uint64_t difference(int larger, int smaller) const;
    int down(int level, const Reading& reading, uint64_t low) const;
    int up(int level, int top, const Reading& reading, uint64_t low) const;

    static constexpr double kHold = 5, kLongestHold = 300, kRelapse = 30, kSettle = 0.5;
    std::vector<uint64_t> needs_;
    double hold_s_ = kHold;
    double calm_since_s_ = -1, last_up_s_ = -1e9, last_down_s_ = -1e9;
};

}  // namespace edge
