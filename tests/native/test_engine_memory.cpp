// The memory budget, on made-up /proc and /sys trees.
#include "engine_check.h"
#include "memory.h"
#include "temporary.h"

using namespace edge;

namespace {

constexpr uint64_t kMiB = 1 << 20;

struct Tree : edge_test::TemporaryFolder {
    Tree() {
        write("/proc/meminfo", "MemTotal:       4194304 kB\nMemFree: 1 kB\nMemAvailable:    2097152 kB\n");  // 2 GiB
        write("/proc/self/cgroup", "0::/\n");
    }
    MemoryBudget measure() const { return measure_memory(root); }
};

void test_available() {
    const Tree tree;
    const MemoryBudget budget = tree.measure();
    check(budget.bytes == 2048 * kMiB - 2048 * kMiB / 10, "2 GiB less 10 %, got " + std::to_string(budget.bytes));
    check(contains(budget.reason, "MemAvailable leaves 2048.0 MiB"), budget.reason);
}

void test_cgroup_v2() {
    Tree tree;
    tree.write("/proc/self/cgroup", "0::/app/worker\n");
    tree.write("/sys/fs/cgroup/app/worker/memory.max", "max\n");
    tree.write("/sys/fs/cgroup/app/worker/memory.current", "104857600\n");
    tree.write("/sys/fs/cgroup/app/memory.max", "524288000\n");  // 500 MiB on the parent
    tree.write("/sys/fs/cgroup/app/memory.current", "209715200\n");
    tree.write("/sys/fs/cgroup/app/memory.stat", "anon 1\ninactive_file 104857600\nfile 5\n");  // of 200, 100 can go
    const MemoryBudget budget = tree.measure();
    check(budget.bytes == 400 * kMiB - 64 * kMiB, "500 - (200 - 100) - 64 MiB, got " + std::to_string(budget.bytes));
    check(contains(budget.reason, "cgroup v2"), budget.reason);
    tree.write("/sys/fs/cgroup/app/memory.current", "524288000\n");
    tree.write("/sys/fs/cgroup/app/memory.stat", "inactive_file 0\n");
    check(tree.measure().bytes == 0, "no room left");
}

void test_cgroup_v1() {
    Tree tree;
    tree.write("/proc/self/cgroup", "5:cpu,cpuacct:/x\n3:memory:/docker/abc\n");
    tree.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "314572800\n");  // the container sees its own group as the root
    tree.write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "104857600\n");
    check(tree.measure().bytes == 200 * kMiB - 64 * kMiB, "300 - 100 - 64 MiB");
    check(contains(tree.measure().reason, "cgroup v1"), "names v1");
}

}  // namespace

int main() {
    test_available();
    test_cgroup_v2();
    test_cgroup_v1();
    check(measure_memory().bytes > 0, "this machine");
    return finish();
}
