// One block of zeroed memory, handed out piece by piece. Measuring and allocating run the same code, so sizes are exact.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "bytes.h"
#include "errors.h"

namespace edge {

class Arena {
public:
    Arena() = default;  // measures: take() returns nullptr and counts
    explicit Arena(uint64_t capacity) : capacity_(capacity) {
        if (capacity == 0) return;
        void* memory = capacity > SIZE_MAX ? MAP_FAILED
                                           : mmap(nullptr, static_cast<size_t>(capacity), PROT_READ | PROT_WRITE,
                                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
            throw Error{EDGE_OUT_OF_MEMORY, "could not allocate " + mebibytes(capacity) +
                                                "\nhint: lower the context, or choose a smaller level"};
        }
        base_ = static_cast<uint8_t*>(memory);
    }
    ~Arena() {
        if (base_) munmap(base_, static_cast<size_t>(capacity_));
    }
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // n elements, zeroed, 64-byte aligned. The caller asks for exactly what it measured before.
    template <typename T>
    T* take(uint64_t n) {
        const uint64_t begin = used_;
        used_ = add_bytes(used_, align_bytes(multiply_bytes(n, sizeof(T)), 64));
        return base_ ? reinterpret_cast<T*>(base_ + begin) : nullptr;
    }
    uint64_t used() const { return used_; }

    // Gives pages back that lie wholly in these bytes; what they hold is lost.
    static void release(void* bytes, size_t n_bytes) {
        const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
        const uintptr_t begin = (reinterpret_cast<uintptr_t>(bytes) + page - 1) / page * page;
        const uintptr_t end = (reinterpret_cast<uintptr_t>(bytes) + n_bytes) / page * page;
        if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
    }

private:
    uint8_t* base_ = nullptr;
    uint64_t capacity_ = 0;
    uint64_t used_ = 0;
};

}  // namespace edge
