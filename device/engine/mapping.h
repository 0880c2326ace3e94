// The runs of an artifact in memory: mapped read-only or copied to huge pages, and shared by the levels that use them.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "artifact.h"

namespace edge {

inline constexpr uint64_t kHugePage = 2 << 20;
inline constexpr int kAllLevels = -1;  // in place of a level: the runs that all of them use

struct Placement {
    bool lock = false;        // mlock: pages stay in memory
    bool prefault = false;    // every page is there and mapped when the constructor returns
    bool huge_pages = false;  // a private copy, with huge pages where the system gives them
    bool shared = false;      // all runs one behind the other, mapped or copied: a device reads them where they lie
    bool only_device = false; // nobody else reads them: pages of what it has a copy of go back to the system
};

// One run in memory. Its pages go back to the system with the last level that uses it.
struct MappedRun {
    MappedRun(const Range& range, size_t index, std::atomic<bool>& passed) : range(range), index(index), passed(passed) {}
    ~MappedRun();
    MappedRun(const MappedRun&) = delete;
    MappedRun& operator=(const MappedRun&) = delete;

    const Range range;  // of the data
    const size_t index;
    const uint8_t* data = nullptr;   // its first byte
    void* pages = nullptr;           // what it owns: whole pages, in which no other run lies
    size_t n_page_bytes = 0;
    std::atomic<bool>& passed;       // its hash was found to be right
    std::atomic<bool> lost{false};   // its pages are no longer in the file: zeros stand for them
};

class Mapping {
public:
    // What `other` (may be nullptr), a level of the same file, has in memory is used here, too; the rest is mapped. `passed` has a flag
    // for each run of the file, and outlives this. Throws EDGE_IO or EDGE_OUT_OF_MEMORY.
    Mapping(int file, const Artifact& artifact, int level, const Placement& placement, std::span<std::atomic<bool>> passed,
            const Mapping* other);
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    // The byte at this offset of the data, which must lie in a run that the level uses.
    const uint8_t* at(uint64_t offset) const;

    // Throws EDGE_IO when pages were lost that somebody read.
    void require_whole() const;

    // Lets the system take the pages back: what is read again comes from the file. Not for copies.
    void drop_pages() const;

    // All runs, one behind the other in whole pages: of a level that is shared with a device, and so with no other level.
    std::span<const uint8_t> pages() const;

    // Runs that the level uses, in file order; none is empty.
    std::span<const std::shared_ptr<MappedRun>> runs() const { return runs_; }

private:
    std::shared_ptr<MappedRun> find(size_t index) const;
    std::vector<std::shared_ptr<MappedRun>> runs_;
};

// Bytes that a level's copy on huge pages takes.
uint64_t copied_bytes(const Artifact& artifact, int level);

uint64_t page_size();  // of this system: 16 KiB on some phones

// Whether each run begins at a page of this size in the file, so that any of them can be mapped one behind the other.
bool begin_at_pages(const Artifact& artifact, uint64_t page_bytes);

}  // namespace edge
