// The thread pool: every thread runs once a round, every item once, and memory is visible across rounds.
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "engine_check.h"
#include "threads.h"

using namespace edge;

namespace {

void test_rounds(int n_threads) {
    ThreadPool pool(n_threads);
    check(pool.size() == n_threads, "size");
    std::vector<int64_t> sums(static_cast<size_t>(n_threads), 0);
    for (int round = 0; round < 3000; ++round) {
        // Each thread adds its neighbour's last sum: a round that began early would read a wrong one.
        std::vector<int64_t> before = sums;
        pool.run([&](int thread) {
            const size_t t = static_cast<size_t>(thread);
            sums[t] = before[(t + 1) % before.size()] + thread + 1;
        });
        if (round % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // let the workers fall asleep
    }
    std::vector<int64_t> expected(static_cast<size_t>(n_threads), 0);
    for (int round = 0; round < 3000; ++round) {
        std::vector<int64_t> before = expected;
        for (size_t t = 0; t < expected.size(); ++t) expected[t] = before[(t + 1) % before.size()] + static_cast<int64_t>(t) + 1;
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

}  // namespace

int main() {
    for (const int n_threads : {1, 2, 3, 8}) {
        test_rounds(n_threads);
        for (const int64_t n_items : {0, 1, 2, 7, 100}) test_items(n_threads, n_items);
    }
    for (int i = 0; i < 50; ++i) ThreadPool unused(4);  // starts and ends without work
    check(usable_cores() >= 1, "usable_cores");
    return finish();
}
