#include "upload.h"

#include <cstring>

#include "bytes.h"

namespace edge::gpu {
namespace {

uint64_t panel_bytes(const WeightPanel& panel) { return static_cast<uint64_t>(panel.tile_bytes * panel_tiles(panel.panel)); }

template <typename T>
Buffer table(Device& device, const std::vector<T>& values) {
    Buffer buffer(device, values.size() * sizeof(T));
    buffer.write(0, values.data(), values.size() * sizeof(T));
    return buffer;
}

}  // namespace

Buffer Upload::weights(std::initializer_list<Parts> products) {
    uint64_t n_bytes = 0;
    for (const Parts& own : products) {
        for (const Part& part : own.parts) {
            for (const WeightPanel& panel : part.weight->panels) n_bytes += align_bytes(panel_bytes(panel), kPanelAlignment);
        }
    }
    Buffer buffer = shared_ ? Buffer() : Buffer(device_, n_bytes);
    uint64_t at = 0;
    for (const Parts& own : products) {
        Product& product = *own.product;
        const Weight& first = *own.parts.front().weight;
        product.first_tile = static_cast<int32_t>(tiles_.size() / kTileWords);
        product.columns = first.columns;
        product.group = first.group;
        product.n_pieces = first.column_panels ? static_cast<int32_t>(first.panels.size()) : 1;
        for (const Part& part : own.parts) add(*part.weight, part.first_row, buffer, at);
        product.n_tiles = (static_cast<int32_t>(tiles_.size() / kTileWords) - product.first_tile) / product.n_pieces;
    }
    return buffer;
}

int32_t Upload::vector(const float* values, int64_t n) {
    if (!values) return -1;
    const auto at = static_cast<int32_t>(vectors_.size());
    vectors_.insert(vectors_.end(), values, values + n);
    return at;
}

int32_t Upload::pairs(const float* inv_freq, int64_t n, std::vector<float>& frequencies) {
    const auto at = static_cast<int32_t>(places_.size());
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits;
        std::memcpy(&bits, inv_freq + i, 4);
        const auto [found, is_new] = known_frequencies_.emplace(bits, static_cast<int32_t>(frequencies.size()));
        if (is_new) frequencies.push_back(inv_freq[i]);
        places_.push_back(found->second);
    }
    return at;
}

Tables Upload::finish() const {
    return {table(device_, tiles_), table(device_, books_), table(device_, vectors_), table(device_, places_)};
}

// The tiles of row panels one behind the other; of column panels, all pieces of a tile.
void Upload::add(const Weight& weight, int32_t first_row, const Buffer& buffer, uint64_t& at) {
    std::vector<uint64_t> begins;
    for (const WeightPanel& panel : weight.panels) begins.push_back(place(panel, buffer, at));
    if (!weight.column_panels) {
        for (size_t p = 0; p < weight.panels.size(); ++p) {
            for (int t = 0; t < panel_tiles(weight.panels[p].panel); ++t) add_tile(weight.panels[p], t, first_row, begins[p]);
        }
        return;
    }
    for (int t = 0; t < panel_tiles(weight.panels[0].panel); ++t) {
        for (size_t p = 0; p < weight.panels.size(); ++p) add_tile(weight.panels[p], t, first_row, begins[p]);
    }
}

// Where the panel begins in its buffer; `at`: where the next one goes.
uint64_t Upload::place(const WeightPanel& panel, const Buffer& buffer, uint64_t& at) const {
    if (shared_) return static_cast<uint64_t>(panel.panel.codes - static_cast<const uint8_t*>(shared_->pages()));
    const uint64_t begin = at;
    buffer.write(begin, panel.panel.codes, panel_bytes(panel));
    at += align_bytes(panel_bytes(panel), kPanelAlignment);
    return begin;
}

void Upload::add_tile(const WeightPanel& own, int tile, int32_t first_row, uint64_t begin) {
    const Panel& panel = own.panel;
    const int64_t scale_bytes = int64_t{panel_groups(panel)} * kTileRows * 2, code_bytes = own.tile_bytes - scale_bytes;
    const uint64_t codes = begin + static_cast<uint64_t>(tile * code_bytes);
    const uint64_t scales = begin + static_cast<uint64_t>(panel_tiles(panel) * code_bytes + tile * scale_bytes);
    const int32_t n_rows = panel.rows - tile * kTileRows;
    const int32_t entry[kTileWords] = {static_cast<int32_t>(static_cast<uint32_t>(codes / 16)),
                                       static_cast<int32_t>(static_cast<uint32_t>(scales / 16)),
                                       first_row + static_cast<int32_t>(own.row_begin) + tile * kTileRows,
                                       n_rows < kTileRows ? n_rows : kTileRows,
                                       own.bits,
                                       panel.columns,
                                       own.column_begin,
                                       panel.codebook ? book(panel.codebook) : 0};
    tiles_.insert(tiles_.end(), entry, entry + kTileWords);
}

int32_t Upload::book(const int8_t* values) {
    const auto [found, is_new] = known_books_.emplace(values, static_cast<int32_t>(books_.size()));
    if (is_new) books_.insert(books_.end(), values, values + 16);
    return found->second;
}

}  // namespace edge::gpu
