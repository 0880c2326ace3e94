#include "mapping.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "bytes.h"
#include "errors.h"

namespace edge {

Mapping::Mapping(int file, const Artifact& artifact, int level, bool lock) {
    try {
        uint64_t begin = 0, end = 0;
        for (const Run& run : artifact.runs) {
            if (!run.used_by(level) || run.begin == run.end) continue;
            if (run.begin != end || begin == end) {
                if (end > begin) map(file, artifact.data_offset, begin, end, lock);
                begin = run.begin;
            }
            end = run.end;
        }
        if (end > begin) map(file, artifact.data_offset, begin, end, lock);
    } catch (...) {
        unmap();
        throw;
    }
}

Mapping::~Mapping() { unmap(); }

void Mapping::unmap() {
    for (const Region& region : regions_) munmap(region.pages, region.n_pages_bytes);
    regions_.clear();
}

void Mapping::map(int file, uint64_t data_offset, uint64_t begin, uint64_t end, bool lock) {
    const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));  // 16 KiB on some phones: runs may begin inside one
    const uint64_t first = data_offset + begin, lead = first % page;
    const uint64_t length = end - begin + lead;
    void* pages = MAP_FAILED;
    errno = ENOMEM;
    if (length <= SIZE_MAX) {
        pages = mmap(nullptr, static_cast<size_t>(length), PROT_READ, MAP_PRIVATE, file, static_cast<off_t>(first - lead));
    }
    if (pages == MAP_FAILED) {
        throw Error{errno == ENOMEM ? EDGE_OUT_OF_MEMORY : EDGE_IO,
                    "could not map " + mebibytes(length) + " of the file: " + strerror(errno)};
    }
    auto* bytes = static_cast<uint8_t*>(pages);
    regions_.push_back({begin, end, bytes, static_cast<size_t>(length), bytes + lead});
    madvise(pages, static_cast<size_t>(length), MADV_WILLNEED);  // every weight is read for each token: fetch all, early
    if (lock && mlock(pages, static_cast<size_t>(length)) != 0) {
        throw Error{EDGE_OUT_OF_MEMORY, "could not lock " + mebibytes(length) + " of weights in memory: " + strerror(errno) +
                                            "\nhint: raise `ulimit -l`, or load without locking"};
    }
}

const uint8_t* Mapping::at(uint64_t offset) const {
    for (const Region& region : regions_) {
        if (region.begin <= offset && offset < region.end) return region.data + (offset - region.begin);
    }
    throw Error{EDGE_INTERNAL, "offset " + std::to_string(offset) + " is not mapped"};
}

}  // namespace edge
