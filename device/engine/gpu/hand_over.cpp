#include "hand_over.h"

namespace edge::gpu {
namespace {

uint64_t as_bytes(int64_t n) { return static_cast<uint64_t>(n); }

// Calls copy(buffer, at, data, n_bytes) for each stretch of the tokens' rows. A head lies there as here; only the distance between
// heads is another one.
template <typename Copy>
void each_row(const KvCache& cache, int block, const Buffer& buffer, int64_t capacity, int64_t first, int64_t last, Copy& copy) {
    int64_t at = 0;
    for (size_t part = 0; part < 4; ++part) {
        for (int head = 0; head < cache.n_heads(block); ++head) {
            const KvCache::Rows rows = cache.rows(block, head)[part];
            const int64_t begin = first / rows.row_tokens, end = (last + rows.row_tokens - 1) / rows.row_tokens;
            const int64_t skipped = begin * rows.row_bytes;
            copy(buffer, as_bytes(at + skipped), rows.data + skipped, as_bytes((end - begin) * rows.row_bytes));
            at += capacity / rows.row_tokens * rows.row_bytes;
        }
    }
}

// The same for a mixer: what its convolutions remember of x, b and c, then its states.
template <typename Copy>
void each_state(const StateCache::Mixer& mixer, const Buffer& buffer, Copy& copy) {
    const StateCache::Shape& shape = mixer.shape;
    uint64_t at = 0;
    const auto floats = [&](float* data, int64_t n) {
        copy(buffer, at, data, as_bytes(n) * sizeof(float));
        at += as_bytes(n) * sizeof(float);
    };
    for (int i = 0; i < 3; ++i) floats(mixer.past[i], shape.n_past * shape.rows[i]);
    floats(mixer.state, int64_t{shape.n_heads} * shape.state * shape.head);
}

template <typename Copy>
void each_stretch(const LevelMemory& here, const DeviceMemory& there, int64_t first, int64_t last, Copy copy) {
    for (size_t b = 0; b < there.caches.size(); ++b) {
        const int block = static_cast<int>(b);
        each_row(here.cache, block, there.caches[b], there.shape.capacity, first, last, copy);
        if (const StateCache::Mixer& mixer = here.states.of(block); mixer.state) each_state(mixer, there.caches[b], copy);
    }
}

}  // namespace

void copy_to_device(const LevelMemory& from, const DeviceMemory& to, int64_t first, int64_t last) {
    each_stretch(from, to, first, last,
                 [](const Buffer& buffer, uint64_t at, const void* data, uint64_t n_bytes) { buffer.write(at, data, n_bytes); });
}

void copy_from_device(const DeviceMemory& from, const LevelMemory& to, int64_t first, int64_t last) {
    each_stretch(to, from, first, last,
                 [](const Buffer& buffer, uint64_t at, void* data, uint64_t n_bytes) { buffer.read(at, data, n_bytes); });
}

}  // namespace edge::gpu
