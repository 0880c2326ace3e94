#include "mapping.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "bytes.h"
#include "errors.h"

namespace edge {
namespace {

// What a level uses, with adjacent runs joined.
std::vector<Range> used_ranges(const Artifact& artifact, int level) {
    std::vector<Range> ranges;
    for (const Run& run : artifact.runs) {
        if (!run.used_by(level) || run.begin == run.end) continue;
        if (ranges.empty() || ranges.back().end != run.begin) ranges.push_back({run.begin, run.begin});
        ranges.back().end = run.end;
    }
    return ranges;
}

void read_range(int file, uint8_t* out, uint64_t n_bytes, uint64_t offset) {
    while (n_bytes > 0) {
        const ssize_t n = pread(file, out, static_cast<size_t>(n_bytes), static_cast<off_t>(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) throw Error{EDGE_IO, std::string("could not read the weights: ") + (n ? strerror(errno) : "end of file")};
        out += n, n_bytes -= static_cast<uint64_t>(n), offset += static_cast<uint64_t>(n);
    }
}

// Of a file's pages: what is not in the page cache yet is read in huge pages, and mapped so. False where the system has none.
bool wish_huge_pages(void* pages, size_t n_bytes) {
#ifdef MADV_HUGEPAGE
    return madvise(pages, n_bytes, MADV_HUGEPAGE) == 0;
#else
    static_cast<void>(pages), static_cast<void>(n_bytes);
    return false;
#endif
}

// Maps what is in the page cache without a fault per page; older systems fault as they go.
void populate(void* pages, size_t n_bytes) {
#ifdef MADV_POPULATE_READ
    if (madvise(pages, n_bytes, MADV_POPULATE_READ) == 0) return;
#endif
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const auto* bytes = static_cast<const volatile uint8_t*>(pages);
    for (size_t at = 0; at < n_bytes; at += page) static_cast<void>(bytes[at]);
}

}  // namespace

Mapping::Mapping(int file, const Artifact& artifact, int level, const Placement& placement) {
    const std::vector<Range> ranges = used_ranges(artifact, level);
    try {
        if (placement.huge_pages) {
            copy(file, artifact.data_offset, ranges);
        } else {
            for (const Range& range : ranges) map(file, artifact.data_offset, range, placement);
        }
        if (placement.lock) lock();
    } catch (...) {
        unmap();
        throw;
    }
}

Mapping::~Mapping() { unmap(); }

void Mapping::unmap() {
    for (const Pages& pages : pages_) munmap(pages.begin, pages.n_bytes);
    pages_.clear();
}

void Mapping::map(int file, uint64_t data_offset, const Range& range, const Placement& placement) {
    const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));  // 16 KiB on some phones: runs may begin inside one
    const uint64_t first = data_offset + range.begin, lead = first % page;
    const uint64_t length = range.end - range.begin + lead;
    void* pages = MAP_FAILED;
    errno = ENOMEM;
    if (length <= SIZE_MAX) {
        pages = mmap(nullptr, static_cast<size_t>(length), PROT_READ, MAP_PRIVATE, file, static_cast<off_t>(first - lead));
    }
    if (pages == MAP_FAILED) {
        throw Error{errno == ENOMEM ? EDGE_OUT_OF_MEMORY : EDGE_IO,
                    "could not map " + mebibytes(length) + " of the file: " + strerror(errno)};
    }
    pages_.push_back({pages, static_cast<size_t>(length)});
    regions_.push_back({range.begin, range.end, static_cast<uint8_t*>(pages) + lead});
    if (!wish_huge_pages(pages, static_cast<size_t>(length))) madvise(pages, static_cast<size_t>(length), MADV_WILLNEED);
    if (placement.prefault) populate(pages, static_cast<size_t>(length));
}

// All ranges one behind the other, from a border of huge pages on.
void Mapping::copy(int file, uint64_t data_offset, const std::vector<Range>& ranges) {
    uint64_t length = 0;
    for (const Range& range : ranges) length += range.end - range.begin;
    length = align_bytes(length, kHugePage);
    const uint64_t reserved = add_bytes(length, kHugePage);
    void* pages = reserved > SIZE_MAX ? MAP_FAILED
                                      : mmap(nullptr, static_cast<size_t>(reserved), PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        throw Error{EDGE_OUT_OF_MEMORY, "could not allocate " + mebibytes(length) +
                                            " for a copy of the weights\nhint: load without huge pages, or choose a smaller level"};
    }
    const uint64_t lead = (kHugePage - reinterpret_cast<uintptr_t>(pages) % kHugePage) % kHugePage;
    auto* out = static_cast<uint8_t*>(pages) + lead;
    munmap(out + length, static_cast<size_t>(kHugePage - lead));
    if (lead > 0) munmap(pages, static_cast<size_t>(lead));
    pages_.push_back({out, static_cast<size_t>(length)});
    wish_huge_pages(out, static_cast<size_t>(length));  // refused: small pages do as well
    for (const Range& range : ranges) {
        read_range(file, out, range.end - range.begin, data_offset + range.begin);
        regions_.push_back({range.begin, range.end, out});
        out += range.end - range.begin;
    }
    mprotect(pages_.back().begin, pages_.back().n_bytes, PROT_READ);
}

void Mapping::lock() const {
    uint64_t total = 0;
    for (const Pages& pages : pages_) total += pages.n_bytes;
    for (const Pages& pages : pages_) {
        if (mlock(pages.begin, pages.n_bytes) == 0) continue;
        const int reason = errno;
        rlimit limit{};
        const bool limited = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < total;
        throw Error{EDGE_OUT_OF_MEMORY, "could not lock " + mebibytes(total) + " of weights in memory: " +
                                            (limited ? "the limit (RLIMIT_MEMLOCK) is " + mebibytes(limit.rlim_cur)
                                                     : std::string(strerror(reason))) +
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
