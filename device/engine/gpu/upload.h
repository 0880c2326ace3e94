// How weights and vectors get to a device: panels as they lie in the file, and the tables by which kernels find them.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <map>
#include <utility>
#include <vector>

#include "device.h"
#include "weights.h"

namespace edge::gpu {

inline constexpr int kTileWords = 8;             // of a tile's entry in the table (kernels/gpu/weights.cl)
inline constexpr uint64_t kPanelAlignment = 64;  // bytes

// Weights that read the same activations and are multiplied together; their outputs lie side by side.
struct Product {
    const Buffer* weights = nullptr;
    int32_t first_tile = 0, n_tiles = 0;
    int32_t n_pieces = 1;  // of a tile: column panels
    int32_t columns = 0, group = 8;
};

// What all kernels of a level read.
struct Tables {
    Buffer tiles;    // kTileWords numbers for each tile of each panel
    Buffer books;    // codebooks of 16 values
    Buffer vectors;  // floats: gains and biases
    Buffer places;   // of pairs, in the list of frequencies
};

class Upload {
public:
    // `shared` (may be nullptr): where the panels lie already, in pages of the host.
    explicit Upload(Device& device, const Buffer* shared = nullptr) : device_(device), shared_(shared) {}

    struct Part {
        const Weight* weight;
        int32_t first_row;  // in the product's output
    };
    struct Parts {
        Product* product;
        std::vector<Part> parts;
    };
    // One buffer for these weights, of no device where they are shared. The caller says in their products where it is.
    Buffer weights(std::initializer_list<Parts> products);
    // Where the values begin among the vectors; -1 for nullptr.
    int32_t vector(const float* values, int64_t n);
    // Where the places of these pairs begin; what is new goes to the end of `frequencies`.
    int32_t pairs(const float* inv_freq, int64_t n, std::vector<float>& frequencies);

    Tables finish() const;

private:
    void add(const Weight& weight, int32_t first_row, const Buffer& buffer, uint64_t& at);
    uint64_t place(const WeightPanel& panel, const Buffer& buffer, uint64_t& at) const;
    void add_tile(const WeightPanel& own, int tile, int32_t first_row, uint64_t begin);
    int32_t book(const int8_t* values);

    Device& device_;
    const Buffer* shared_;
    std::vector<int32_t> tiles_, places_;
    std::vector<float> vectors_;
    std::vector<int8_t> books_;
    std::map<const int8_t*, int32_t> known_books_;
    std::map<uint32_t, int32_t> known_frequencies_;
};

}  // namespace edge::gpu
