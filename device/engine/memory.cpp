#include "memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

#include "bytes.h"

namespace edge {
namespace {

struct Limit {
    uint64_t room;
    std::string name;
};

std::optional<uint64_t> read_number(const std::string& path) {
    std::ifstream file(path);
    uint64_t value;
    if (file >> value) return value;
    return std::nullopt;  // missing, or "max"
}

// The number behind `key` in a file of "key number" lines ("MemAvailable: 123 kB", "inactive_file 123").
std::optional<uint64_t> read_field(const std::string& path, const std::string& key) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string word;
        uint64_t value;
        if (words >> word && word == key && words >> value) return value;
    }
    return std::nullopt;
}

void lower(Limit& lowest, uint64_t room, const std::string& name) {
    if (room < lowest.room) lowest = {room, name};
}

std::string limit_file(const MemoryGroup& group) {
    return group.folder + (group.v2 ? "/memory.max" : "/memory.limit_in_bytes");
}
std::string usage_file(const MemoryGroup& group) {
    return group.folder + (group.v2 ? "/memory.current" : "/memory.usage_in_bytes");
}
std::string limit_name(const MemoryGroup& group) { return group.v2 ? "cgroup v2 memory.max" : "cgroup v1 memory.limit_in_bytes"; }

// Room in one control group: its limit less what is used and cannot be reclaimed.
void lower_by_group(Limit& lowest, const MemoryGroup& group) {
    const auto limit = read_number(limit_file(group)), used = read_number(usage_file(group));
    if (!limit || !used) return;
    const auto cache = read_field(group.folder + "/memory.stat", group.v2 ? "inactive_file" : "total_inactive_file").value_or(0);
    const uint64_t held = *used - std::min(*used, cache);
    lower(lowest, *limit - std::min(*limit, held), limit_name(group));
}

void lower_by_rlimit(Limit& lowest, int resource, const std::string& name, const std::string& status, const char* key) {
    rlimit limit;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
    const uint64_t used = read_field(status, key).value_or(0) * 1024;
    lower(lowest, limit.rlim_cur - std::min<uint64_t>(limit.rlim_cur, used), name);
}

// Bytes of a group's page cache that no process maps.
uint64_t unmapped_cache(const MemoryGroup& group) {
    const std::string stat = group.folder + "/memory.stat", prefix = group.v2 ? "" : "total_";
    const uint64_t cache = read_field(stat, group.v2 ? "file" : "total_cache").value_or(0);
    const uint64_t held = read_field(stat, group.v2 ? "file_mapped" : "total_mapped_file").value_or(0) +
                          read_field(stat, prefix + "shmem").value_or(0);
    return cache - std::min(cache, held);
}

}  // namespace

std::vector<MemoryGroup> memory_groups(const std::string& root) {
    std::vector<MemoryGroup> groups;
    std::ifstream file(root + "/proc/self/cgroup");
    for (std::string line; std::getline(file, line);) {
        const size_t first = line.find(':');
        const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        const bool v2 = line.compare(0, 3, "0::") == 0;
        if (!v2 && controllers.find(",memory,") == std::string::npos) continue;
        const std::string mount = root + (v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory");
        std::string path = line.substr(second + 1);
        while (!path.empty() && path != "/") {
            groups.push_back({mount + path, v2});
            path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
        }
        groups.push_back({mount, v2});
    }
    return groups;
}

MemoryRoom measure_room(const std::string& root) {
    const uint64_t total = read_field(root + "/proc/meminfo", "MemTotal:").value_or(0) * 1024;
    MemoryRoom lowest{read_field(root + "/proc/meminfo", "MemAvailable:").value_or(total / 1024) * 1024, total, "MemAvailable"};
    for (const MemoryGroup& group : memory_groups(root)) {
        const auto limit = read_number(limit_file(group)), used = read_number(usage_file(group));
        if (!limit || !used) continue;
        const uint64_t held = *used - std::min(*used, unmapped_cache(group)), room = *limit - std::min(*limit, held);
        if (room < lowest.bytes) lowest = {room, *limit, limit_name(group)};
    }
    return lowest;
}

MemoryBudget measure_memory(const std::string& root) {
    Limit lowest{static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)),
                 "physical memory"};
    if (const auto available = read_field(root + "/proc/meminfo", "MemAvailable:")) {
        lower(lowest, *available * 1024, "MemAvailable");
    }
    for (const MemoryGroup& group : memory_groups(root)) lower_by_group(lowest, group);
    lower_by_rlimit(lowest, RLIMIT_AS, "RLIMIT_AS", root + "/proc/self/status", "VmSize:");
    lower_by_rlimit(lowest, RLIMIT_DATA, "RLIMIT_DATA", root + "/proc/self/status", "VmData:");
    const uint64_t reserve = std::max<uint64_t>(64 << 20, lowest.room / 10);
    return {lowest.room - std::min(lowest.room, reserve),
            lowest.name + " leaves " + mebibytes(lowest.room) + ", " + mebibytes(reserve) + " are kept in reserve"};
}

}  // namespace edge
