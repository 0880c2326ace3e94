// How much memory this process may still take: the lowest limit that applies, less a reserve.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace edge {

struct MemoryBudget {
    uint64_t bytes;      // what automatic selection grants; 0 when the room is smaller than the reserve
    std::string reason;  // one line that names the limit and the reserve
};

// Reads <root>/proc and <root>/sys/fs/cgroup (root is for tests). The lowest of MemAvailable, the room in each control
// group (v1 or v2) from this process's own up to the root, RLIMIT_AS and RLIMIT_DATA; less the larger of 64 MiB and 10 %.
MemoryBudget measure_memory(const std::string& root = "");

// Control groups of memory that hold this process, from its own up to the root; in a container only the root may be visible.
struct MemoryGroup {
    std::string folder;
    bool v2;
};
std::vector<MemoryGroup> memory_groups(const std::string& root = "");

// What may be taken before something is killed: by MemAvailable and the groups' limits, where file pages that nobody maps count
// as free.
struct MemoryRoom {
    uint64_t bytes;
    uint64_t limit;    // of which this is left
    std::string name;  // of the limit
};
MemoryRoom measure_room(const std::string& root = "");

}  // namespace edge
