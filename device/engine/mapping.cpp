#include "mapping.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "bytes.h"
#include "errors.h"
#include "lost_pages.h"

namespace edge {
namespace {

using Runs = std::span<const std::shared_ptr<MappedRun>>;

uint64_t n_bytes(const MappedRun& run) { return run.range.end - run.range.begin; }

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
    const size_t page = static_cast<size_t>(page_size());
    const auto* bytes = static_cast<const volatile uint8_t*>(pages);
    for (size_t at = 0; at < n_bytes; at += page) static_cast<void>(bytes[at]);
}

// Gives each run its own pages of what was mapped for all of them at once. `lead` bytes lie before the first run; the last
// one owns the rest.
void hand_out(void* pages, uint64_t length, uint64_t lead, Runs runs) {
    const uint64_t page = page_size();
    auto* at = static_cast<uint8_t*>(pages);
    for (const auto& run : runs) {
        const uint64_t owned = run == runs.back() ? length : align_bytes(lead + n_bytes(*run), page);
        run->data = at + lead;
        run->pages = at;
        run->n_page_bytes = static_cast<size_t>(owned);
        at += owned, length -= owned, lead = 0;
    }
}

// For whole pages from an address on that is `remainder` above a border of huge pages; they are to be replaced or filled. nullptr:
// there is no room, and errno says why.
uint8_t* reserve(uint64_t length, uint64_t remainder, int protection) {
    const uint64_t reserved = add_bytes(length, kHugePage);
    errno = ENOMEM;
    void* pages = reserved > SIZE_MAX ? MAP_FAILED
                                      : mmap(nullptr, static_cast<size_t>(reserved), protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) return nullptr;
    const uint64_t lead = (kHugePage + remainder - reinterpret_cast<uintptr_t>(pages) % kHugePage) % kHugePage;
    auto* out = static_cast<uint8_t*>(pages) + lead;
    munmap(out + length, static_cast<size_t>(kHugePage - lead));
    if (lead > 0) munmap(pages, static_cast<size_t>(lead));
    return out;
}

[[noreturn]] void fail_to_map(uint64_t length) {
    throw Error{errno == ENOMEM ? EDGE_OUT_OF_MEMORY : EDGE_IO,
                "could not map " + mebibytes(length) + " of the file: " + strerror(errno)};
}

// What was mapped for these runs.
void prepare(void* pages, uint64_t length, Runs runs, const Placement& placement) {
    for (const auto& run : runs) watch_pages(run->pages, run->n_page_bytes, run->lost);
    if (!wish_huge_pages(pages, static_cast<size_t>(length))) madvise(pages, static_cast<size_t>(length), MADV_WILLNEED);
    if (placement.prefault) populate(pages, static_cast<size_t>(length));
}

// Runs side by side in the file, of which only the first may begin inside a page.
void map(int file, uint64_t data_offset, Runs runs, const Placement& placement) {
    const uint64_t first = data_offset + runs.front()->range.begin, lead = first % page_size();
    const uint64_t length = runs.back()->range.end - runs.front()->range.begin + lead;
    void* pages = MAP_FAILED;
    errno = ENOMEM;
    if (length <= SIZE_MAX) {
        pages = mmap(nullptr, static_cast<size_t>(length), PROT_READ, MAP_PRIVATE, file, static_cast<off_t>(first - lead));
    }
    if (pages == MAP_FAILED) fail_to_map(length);
    hand_out(pages, length, lead, runs);
    prepare(pages, length, runs, placement);
}

void map_all(int file, uint64_t data_offset, Runs runs, const Placement& placement) {
    for (size_t begin = 0, end; begin < runs.size(); begin = end) {
        for (end = begin + 1; end < runs.size(); ++end) {
            const uint64_t border = runs[end]->range.begin;
            if (border != runs[end - 1]->range.end || (data_offset + border) % page_size() != 0) break;
        }
        map(file, data_offset, runs.subspan(begin, end - begin), placement);
    }
}

// Runs that begin at pages of the file, one behind the other whatever lies between them there. Huge pages of the first stretch of
// the file fit those of memory.
void map_together(int file, uint64_t data_offset, Runs runs, const Placement& placement) {
    uint64_t length = 0;
    for (const auto& run : runs) length += align_bytes(n_bytes(*run), page_size());
    uint8_t* pages = reserve(length, (data_offset + runs.front()->range.begin) % kHugePage, PROT_NONE);
    if (!pages) fail_to_map(length);
    hand_out(pages, length, 0, runs);
    for (const auto& run : runs) {
        const auto offset = static_cast<off_t>(data_offset + run->range.begin);
        const void* mapped = mmap(run->pages, run->n_page_bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, offset);
        if (mapped == MAP_FAILED) fail_to_map(run->n_page_bytes);
    }
    prepare(pages, length, runs, placement);
}

// All runs one behind the other, from a border of huge pages on.
void copy(int file, uint64_t data_offset, Runs runs) {
    uint64_t length = 0;
    for (const auto& run : runs) length += align_bytes(n_bytes(*run), page_size());
    length = align_bytes(length, kHugePage);
    uint8_t* out = reserve(length, 0, PROT_READ | PROT_WRITE);
    if (!out) {
        throw Error{EDGE_OUT_OF_MEMORY, "could not allocate " + mebibytes(length) +
                                            " for a copy of the weights\nhint: load without huge pages, or choose a smaller level"};
    }
    hand_out(out, length, 0, runs);
    wish_huge_pages(out, static_cast<size_t>(length));  // refused: small pages do as well
    for (const auto& run : runs) {
        read_range(file, static_cast<uint8_t*>(run->pages), n_bytes(*run), data_offset + run->range.begin);
    }
    mprotect(out, static_cast<size_t>(length), PROT_READ);
}

void lock(Runs runs) {
    uint64_t total = 0;
    for (const auto& run : runs) total += run->n_page_bytes;
    for (const auto& run : runs) {
        if (mlock(run->pages, run->n_page_bytes) == 0) continue;
        const int reason = errno;
        rlimit limit{};
        const bool limited = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < total;
        throw Error{EDGE_OUT_OF_MEMORY, "could not lock " + mebibytes(total) + " of weights in memory: " +
                                            (limited ? "the limit (RLIMIT_MEMLOCK) is " + mebibytes(limit.rlim_cur)
                                                     : std::string(strerror(reason))) +
                                            "\nhint: raise `ulimit -l`, or load without locking"};
    }
}

}  // namespace

MappedRun::~MappedRun() {
    if (!pages) return;
    forget_pages(pages);
    munmap(pages, n_page_bytes);
}

void Mapping::drop_pages() const {
    for (const auto& run : runs_) madvise(run->pages, run->n_page_bytes, MADV_DONTNEED);
}

void Mapping::require_whole() const {
    const auto is_lost = [](const auto& run) { return run->lost.load(std::memory_order_acquire); };
    if (std::none_of(runs_.begin(), runs_.end(), is_lost)) return;
    throw Error{EDGE_IO, "the file was cut, or could not be read, while it was mapped\nhint: copy it again, and load it anew; a "
                         "smaller level may still be whole"};
}

Mapping::Mapping(int file, const Artifact& artifact, int level, const Placement& placement,
                 std::span<std::atomic<bool>> passed, const Mapping* other) {
    std::vector<std::shared_ptr<MappedRun>> fresh;
    for (size_t i = 0; i < artifact.runs.size(); ++i) {
        const Run& run = artifact.runs[i];
        const bool is_used = level == kAllLevels ? run.used_by(0) && run.used_by(artifact.n_levels() - 1) : run.used_by(level);
        if (!is_used || run.begin == run.end) continue;
        std::shared_ptr<MappedRun> found = other ? other->find(i) : nullptr;
        if (!found) fresh.push_back(found = std::make_shared<MappedRun>(run, i, passed[i]));
        runs_.push_back(std::move(found));
    }
    if (fresh.empty()) return;
    if (placement.huge_pages) {
        copy(file, artifact.data_offset, fresh);
    } else if (placement.shared) {
        map_together(file, artifact.data_offset, fresh, placement);
    } else {
        map_all(file, artifact.data_offset, fresh, placement);
    }
    if (placement.lock) lock(fresh);
}

std::span<const uint8_t> Mapping::pages() const {
    const auto* begin = static_cast<const uint8_t*>(runs_.front()->pages);
    return {begin, static_cast<const uint8_t*>(runs_.back()->pages) + runs_.back()->n_page_bytes};
}

std::shared_ptr<MappedRun> Mapping::find(size_t index) const {
    const auto found = std::lower_bound(runs_.begin(), runs_.end(), index,
                                        [](const auto& run, size_t wanted) { return run->index < wanted; });
    return found != runs_.end() && (*found)->index == index ? *found : nullptr;
}

const uint8_t* Mapping::at(uint64_t offset) const {
    const auto behind = std::upper_bound(runs_.begin(), runs_.end(), offset,
                                         [](uint64_t wanted, const auto& run) { return wanted < run->range.begin; });
    if (behind != runs_.begin() && offset < (*(behind - 1))->range.end) {
        return (*(behind - 1))->data + (offset - (*(behind - 1))->range.begin);
    }
    throw Error{EDGE_INTERNAL, "offset " + std::to_string(offset) + " is not mapped"};
}

uint64_t copied_bytes(const Artifact& artifact, int level) {
    uint64_t length = 0;
    for (const Run& run : artifact.runs) {
        if (run.used_by(level)) length += align_bytes(run.end - run.begin, page_size());
    }
    return align_bytes(length, kHugePage);
}

uint64_t page_size() { return static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }

bool begin_at_pages(const Artifact& artifact, uint64_t page_bytes) {
    return std::all_of(artifact.runs.begin(), artifact.runs.end(),
                       [&](const Run& run) { return (artifact.data_offset + run.begin) % page_bytes == 0; });
}

}  // namespace edge
