// The runs of an artifact that one level uses: mapped read-only, adjacent runs in one mapping, or copied to huge pages.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "artifact.h"

namespace edge {

inline constexpr uint64_t kHugePage = 2 << 20;

struct Placement {
    bool lock = false;        // mlock: pages stay in memory
    bool prefault = false;    // every page is there and mapped when the constructor returns
    bool huge_pages = false;  // a private copy, with huge pages where the system gives them
};

class Mapping {
public:
    // Throws EDGE_IO or EDGE_OUT_OF_MEMORY. The file may be closed afterwards.
    Mapping(int file, const Artifact& artifact, int level, const Placement& placement);
    ~Mapping();
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    // The byte at this offset of the data, which must lie in a run that the level uses.
    const uint8_t* at(uint64_t offset) const;

private:
    struct Region {
        uint64_t begin, end;  // of the data
        const uint8_t* data;  // the byte at `begin`
    };
    struct Pages {
        void* begin;
        size_t n_bytes;
    };
    void map(int file, uint64_t data_offset, const Range& range, const Placement& placement);
    void copy(int file, uint64_t data_offset, const std::vector<Range>& ranges);
    void lock() const;
    void unmap();
    std::vector<Region> regions_;
    std::vector<Pages> pages_;
};

}  // namespace edge
