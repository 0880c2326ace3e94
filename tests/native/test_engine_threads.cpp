// The thread pool: every item runs once, memory is visible across bursts, and no burst waits for a thread that took nothing.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include "engine_check.h"
#include "threads.h"

using namespace edge;

namespace {

// Each item adds its neighbours' last sums: a burst that began early or ended early would leave a wrong one.
void test_bursts(int n_threads, bool pin) {
    ThreadPool pool(n_threads, pin);
    check(pool.size() == n_threads, "size");
    constexpr size_t kItems = 24;
    std::vector<uint64_t> sums(kItems, 1), expected(kItems, 1), before;
    const auto step = [&before](std::vector<uint64_t>& values, size_t i) {
        values[i] = before[(i + 1) % kItems] * 3 + before[(i + 7) % kItems] + i;
    };
    for (int burst = 0; burst < 3000; ++burst) {
        before = sums;
        pool.each(kItems, [&](int64_t item, int) { step(sums, static_cast<size_t>(item)); });
        if (burst % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // let the workers fall asleep
    }
    for (int burst = 0; burst < 3000; ++burst) {
        before = expected;
        for (size_t i = 0; i < kItems; ++i) step(expected, i);
    }
    check(sums == expected, "sums of " + std::to_string(n_threads) + " threads");
}

void test_items(int n_threads, int64_t n_items) {
    ThreadPool pool(n_threads);
    std::vector<std::atomic<int>> seen(static_cast<size_t>(n_items));
    pool.each(n_items, [&](int64_t item, int thread) {
        check(thread >= 0 && thread < n_threads, "thread number");
        ++seen[static_cast<size_t>(item)];
    });
    for (const auto& n : seen) check(n == 1, "an item ran " + std::to_string(n) + " times");
}

void test_ranges(int n_threads, int64_t total, int64_t step) {
    ThreadPool pool(n_threads);
    std::vector<std::atomic<int>> seen(static_cast<size_t>(total));
    std::atomic<int> n_short{0};
    pool.share(total, step, [&](int64_t begin, int64_t end, int) {
        if (end - begin < step) ++n_short;
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
    });
    for (const auto& n : seen) check(n == 1, "a part of a range ran " + std::to_string(n) + " times");
    check(n_short <= 1, "only the last range is short");
}

// While one thread is held up in its item, the others do all the rest.
void test_a_slow_thread() {
    ThreadPool pool(3);
    constexpr int kItems = 60;
    std::atomic<int> n_done{0};
    bool others_were_done = false;
    std::atomic<bool> held{false};
    pool.each(kItems, [&](int64_t, int) {
        if (!held.exchange(true)) {
            for (int i = 0; i < 2000 && n_done < kItems / 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
            others_were_done = n_done >= kItems / 2;
        }
        ++n_done;
    });
    check(n_done == kItems && others_were_done, "a thread that is held up does not hold up what it has not taken");
}

// A core that is four times as slow is given less at once, so that nobody waits for it: its first range becomes shorter.
void test_a_slow_core() {
    ThreadPool pool(2);
    constexpr int64_t kTotal = 4000;
    constexpr size_t kJoined = 500, kLast = 100;  // bursts that the slow one joined, and the last of them
    std::vector<int64_t> first_ranges;
    std::vector<int64_t> spun(2 * 64);
    for (int burst = 0; burst < 20000 && first_ranges.size() < kJoined; ++burst) {
        std::atomic<int64_t> first{0};
        pool.share(kTotal, 10, [&](int64_t begin, int64_t end, int thread) {
            if (thread == 1 && first == 0) first = end - begin;
            volatile int64_t& counter = spun[static_cast<size_t>(64 * thread)];
            for (int64_t i = 0; i < (end - begin) * (thread == 1 ? 40 : 10); ++i) counter = counter + 1;
        });
        if (first > 0) first_ranges.push_back(first);
    }
    if (first_ranges.size() < kJoined) {
        std::printf("SKIPPED a slow core: no core was free for the second thread\n");
        return;
    }
    std::nth_element(first_ranges.end() - kLast, first_ranges.end() - kLast / 2, first_ranges.end());
    const int64_t median = *(first_ranges.end() - kLast / 2);
    check(median < kTotal * 3 / 8, "a slow core begins with " + std::to_string(median) + " of " + std::to_string(kTotal));
}

}  // namespace

int main() {
    for (const int n_threads : {1, 2, 3, 8}) {
        for (const bool pin : {false, true}) test_bursts(n_threads, pin);
        for (const int64_t step : {1, 10, 1000}) test_ranges(n_threads, 777, step);
        for (const int64_t n_items : {0, 1, 2, 7, 100}) test_items(n_threads, n_items);
    }
    test_a_slow_thread();
    test_a_slow_core();
    ThreadPool pair(2);
    std::printf("a burst in which 2 threads meet: %.2f us\n", measure_burst_us(pair));
    for (int i = 0; i < 50; ++i) ThreadPool unused(4);  // starts and ends without work
    check(usable_cores() >= 1, "usable_cores");
    return finish();
}
