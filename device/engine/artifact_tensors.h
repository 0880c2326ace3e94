// The parts of the header check that deal with tensors: the table of all tensors, and what the model makes of them.
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "artifact.h"
#include "json_fields.h"

namespace edge {

struct Tensor : Range {
    std::string name;      // with its "/level"
    std::string dtype;
    std::vector<uint64_t> shape;
    int32_t run = -1;
    bool is_padding() const { return name.compare(0, 4, "pad.") == 0; }
    int level() const;           // the number behind "/", or -1
    std::string stem() const;    // the name without it
};

// All tensors of a file, in file order. Checks rules 1.3 to 1.5, and with the runs rule 5.3.
class TensorTable {
public:
    TensorTable() = default;
    explicit TensorTable(const Json& container);
    void assign_runs(const std::vector<Run>& runs);
    uint64_t n_data_bytes() const { return tensors_.empty() ? 0 : tensors_.back().end; }
    // Tensors called `stem`/0, `stem`/1 ..., in file order.
    std::vector<const Tensor*> pieces(const std::string& stem) const;

private:
    std::vector<Tensor> tensors_;
    std::unordered_map<std::string, std::vector<int32_t>> by_stem_;
};

// Fills model, codebooks and tokenizer (sections 3, 4 and 7). Needs the runs.
void read_model(const Json& edge, const TensorTable& tensors, Artifact& artifact);

// Rules 4.1, 4.2 and 6.3: on every level the pieces in use cover each weight and vector exactly. Needs the levels.
void check_coverage(const Json& edge, const Artifact& artifact);

}  // namespace edge
