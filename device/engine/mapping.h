// The runs of an artifact that one level uses, mapped read-only; adjacent runs share one mapping.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "artifact.h"

namespace edge {

class Mapping {
public:
    // Throws EDGE_IO or EDGE_OUT_OF_MEMORY. `lock` keeps the pages in memory (mlock). The file may be closed afterwards.
    Mapping(int file, const Artifact& artifact, int level, bool lock);
    ~Mapping();
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    // The byte at this offset of the data, which must lie in a run that the level uses.
    const uint8_t* at(uint64_t offset) const;

private:
    struct Region {
        uint64_t begin, end;  // of the data
        uint8_t* pages;       // where the mapping begins, on a page of this system
        size_t n_pages_bytes;
        const uint8_t* data;  // the byte at `begin`
    };
    void map(int file, uint64_t data_offset, uint64_t begin, uint64_t end, bool lock);
    void unmap();
    std::vector<Region> regions_;
};

}  // namespace edge
