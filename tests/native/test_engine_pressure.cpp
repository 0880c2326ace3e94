// When levels are given up and come back: the policy on made-up readings, and the room that control groups leave.
#include "engine_check.h"
#include "memory.h"
#include "pressure_events.h"
#include "pressure_policy.h"
#include "temporary.h"

using namespace edge;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kLimit = 512 * kMiB;  // the low mark is 32 MiB
const std::vector<uint64_t> kNeeds = {100 * kMiB, 140 * kMiB, 180 * kMiB, 220 * kMiB};

PressurePolicy::Reading room(uint64_t mib, bool pressed = false) { return {mib * kMiB, kLimit, pressed}; }

void test_down() {
    PressurePolicy policy(kNeeds);
    check(policy.next(0, 3, 3, room(200)) == 3, "enough room");
    check(policy.next(1, 3, 3, room(33)) == 3, "just above the mark");
    check(policy.next(2, 3, 3, room(31)) == 2, "below it: one level frees 40 MiB");
    check(policy.next(2.1, 2, 3, room(20)) == 2, "it takes a moment to show");
    check(policy.next(2.2, 2, 3, room(7)) == 0, "a quarter of the mark: everything that can be given up");
    check(policy.next(9, 0, 3, room(0)) == 0, "there is nothing below");
    PressurePolicy other(kNeeds);
    check(other.next(0, 3, 3, room(300, true)) == 3, "others wait for memory");
    check(other.next(1, 3, 3, room(120, true)) == 2, "we wait for memory");
    check(PressurePolicy(kNeeds).next(0, 3, 3, room(9)) == 2, "39 MiB are missing");
    check(PressurePolicy({100 * kMiB, 190 * kMiB, 200 * kMiB, 220 * kMiB}).next(0, 3, 3, room(20)) == 1, "28 MiB are missing");
}

void test_up_with_hysteresis() {
    PressurePolicy policy(kNeeds);
    check(policy.next(0, 3, 3, room(10)) == 2, "down");
    check(policy.next(1, 2, 3, room(300)) == 2 && policy.next(5.5, 2, 3, room(300)) == 2, "not at once");
    check(policy.next(5.6, 2, 3, room(50)) == 2, "too little room to be calm");
    check(policy.next(6, 2, 3, room(300)) == 2 && policy.next(10.9, 2, 3, room(300)) == 2, "which begins anew");
    check(policy.next(11.1, 2, 3, room(300)) == 3, "up after five seconds");
    check(policy.hold_s() == 5, "the first time");
    check(policy.next(20, 3, 3, room(10)) == 2 && policy.hold_s() == 10, "a relapse doubles the wait");
    check(policy.next(21, 2, 3, room(300)) == 2 && policy.next(30.9, 2, 3, room(300)) == 2, "ten seconds now");
    check(policy.next(31.1, 2, 3, room(300)) == 3, "and up again");
    check(policy.next(100, 3, 3, room(300)) == 3 && policy.hold_s() == 5, "a minute of peace forgives");
}

void test_up_to_what_fits() {
    PressurePolicy policy(kNeeds);
    policy.next(0, 0, 3, room(110));
    check(policy.next(6, 0, 3, room(110)) == 1, "40 MiB more leave 70, which is above 64");
    PressurePolicy other(kNeeds);
    other.next(0, 0, 1, room(400));
    check(other.next(6, 0, 1, room(400)) == 1, "never beyond what was asked for");
    PressurePolicy tight(kNeeds);
    tight.next(0, 0, 3, room(100));
    check(tight.next(6, 0, 3, room(100)) == 0, "60 would be left");
}

struct Tree : edge_test::TemporaryFolder {
    Tree() { write("/proc/meminfo", "MemTotal:       4194304 kB\nMemAvailable:    2097152 kB\n"); }
};

void test_room() {
    Tree tree;
    MemoryRoom found = measure_room(tree.root);
    check(found.bytes == 2048 * kMiB && found.limit == 4096 * kMiB && found.name == "MemAvailable", "the whole machine");
    tree.write("/proc/self/cgroup", "4:memory:/app\n0::/\n");
    tree.write("/sys/fs/cgroup/memory/app/memory.limit_in_bytes", "314572800\n");  // 300 MiB
    tree.write("/sys/fs/cgroup/memory/app/memory.usage_in_bytes", "209715200\n");  // 200 MiB, of which 70 can go:
    tree.write("/sys/fs/cgroup/memory/app/memory.stat", "total_cache 104857600\ntotal_mapped_file 31457280\ntotal_shmem 0\n");
    found = measure_room(tree.root);
    check(found.bytes == 170 * kMiB && found.limit == 300 * kMiB, "cgroup v1: " + std::to_string(found.bytes));
    tree.write("/proc/self/cgroup", "0::/app\n");
    tree.write("/sys/fs/cgroup/app/memory.max", "314572800\n");
    tree.write("/sys/fs/cgroup/app/memory.current", "209715200\n");
    tree.write("/sys/fs/cgroup/app/memory.stat", "file 104857600\nfile_mapped 31457280\nshmem 10485760\n");
    found = measure_room(tree.root);
    check(found.bytes == 160 * kMiB && contains(found.name, "v2"), "cgroup v2: " + std::to_string(found.bytes));
}

void test_events() {
    const Tree empty;
    PressureEvents nothing(empty.root);
    check(nothing.names().empty() && !nothing.wait(1), "no sources");
    nothing.wake();
    check(!nothing.wait(60'000), "woken at once");
    PressureEvents here;
    std::printf("sources of pressure events here: %s\n", here.names().empty() ? "none" : here.names().c_str());
    here.wait(1);
}

}  // namespace

int main() {
    test_down();
    test_up_with_hysteresis();
    test_up_to_what_fits();
    test_room();
    test_events();
    return finish();
}
