#include "artifact_tensors.h"

#include <algorithm>

#include "bytes.h"

namespace edge {
namespace {

constexpr uint64_t kMaxOffset = uint64_t{1} << 53;
constexpr size_t kMaxDimensions = 8;

uint64_t element_bytes(const std::string& dtype, const std::string& where) {
    if (dtype == "U8") return 1;
    if (dtype == "F16") return 2;
    if (dtype == "F32" || dtype == "U32") return 4;
    break_rule("1.3", "`" + where + ".dtype` is " + shown(dtype) + ", expected U8, F16, F32 or U32");
}

Tensor read_tensor(const std::string& name, const Json& entry) {
    if (!entry.is_object()) break_rule("1.3", "tensor " + shown(name) + " is " + shown(entry) + ", expected an object");
    Tensor tensor;
    tensor.name = name;
    tensor.dtype = text(entry, "dtype", name, "1.3");
    uint64_t size = element_bytes(tensor.dtype, name);
    for (const Json& extent : list(entry, "shape", 0, kMaxDimensions, name, "1.3")) {
        tensor.shape.push_back(integer(extent, 0, kMaxOffset, name + ".shape", "1.3"));
        size = multiply_bytes(size, tensor.shape.back());
    }
    const Json& offsets = list(entry, "data_offsets", 2, 2, name, "1.3");
    tensor.begin = integer(offsets[0], 0, kMaxOffset, name + ".data_offsets[0]", "1.3");
    tensor.end = integer(offsets[1], tensor.begin, kMaxOffset, name + ".data_offsets[1]", "1.3");
    if (tensor.end - tensor.begin != size) {
        break_rule("1.3", "tensor " + shown(name) + " has " + std::to_string(tensor.end - tensor.begin) +
                              " bytes, its dtype and shape need " + std::to_string(size));
    }
    return tensor;
}

}  // namespace

int Tensor::level() const {
    const size_t slash = name.rfind('/');
    const std::string digits = slash == std::string::npos ? "" : name.substr(slash + 1);
    const bool plain = !digits.empty() && digits.size() <= 6 && digits.find_first_not_of("0123456789") == std::string::npos;
    return plain && (digits.size() == 1 || digits[0] != '0') ? std::stoi(digits) : -1;
}

std::string Tensor::stem() const { return name.substr(0, name.rfind('/')); }

TensorTable::TensorTable(const Json& container) {
    tensors_.reserve(container.size());
    for (const auto& [name, entry] : container.items()) {
        if (name != "__metadata__") tensors_.push_back(read_tensor(name, entry));
    }
    std::sort(tensors_.begin(), tensors_.end(), [](const Tensor& a, const Tensor& b) {
        return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    uint64_t offset = 0;
    for (const Tensor& tensor : tensors_) {
        if (tensor.begin != offset) {
            break_rule("1.4", "tensor " + shown(tensor.name) + " begins at " + std::to_string(tensor.begin) + ", expected " +
                                  std::to_string(offset));
        }
        if (tensor.begin % 64 != 0 && !tensor.is_padding()) {
            break_rule("1.5", "tensor " + shown(tensor.name) + " begins at " + std::to_string(tensor.begin) +
                                  ", expected a multiple of 64");
        }
        if (tensor.is_padding() && tensor.dtype != "U8") {
            break_rule("1.4", "tensor " + shown(tensor.name) + " is " + tensor.dtype + ", expected U8");
        }
        offset = tensor.end;
    }
}

void TensorTable::assign_runs(const std::vector<Run>& runs) {
    size_t r = 0;
    for (size_t i = 0; i < tensors_.size(); ++i) {
        Tensor& tensor = tensors_[i];
        // An empty tensor on a border belongs to the run that its name says.
        while (r + 1 < runs.size() && tensor.begin >= runs[r].end &&
               !(tensor.begin == tensor.end && tensor.level() == runs[r].first_level)) {
            ++r;
        }
        if (tensor.begin < runs[r].begin || tensor.end > runs[r].end) {
            break_rule("5.3", "tensor " + shown(tensor.name) + " crosses the border of run " + std::to_string(r));
        }
        tensor.run = static_cast<int32_t>(r);
        if (tensor.is_padding()) continue;
        if (tensor.level() != runs[r].first_level) {
            break_rule("5.3", "tensor " + shown(tensor.name) + " lies in a run whose first_level is " +
                                  std::to_string(runs[r].first_level));
        }
        by_stem_[tensor.stem()].push_back(static_cast<int32_t>(i));
    }
}

std::vector<const Tensor*> TensorTable::pieces(const std::string& stem) const {
    std::vector<const Tensor*> found;
    const auto entry = by_stem_.find(stem);
    if (entry == by_stem_.end()) return found;
    for (const int32_t i : entry->second) found.push_back(&tensors_[static_cast<size_t>(i)]);
    return found;
}

}  // namespace edge
