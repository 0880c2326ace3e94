// A small artifact with random weights, for native tests that need a model: three levels of one attention, one mixer and one
// MLP, which the smallest level drops; without `has_mixer` a Llama. The same bytes at every call.
#pragma once
#include <string>

namespace edge_test {

constexpr int kVocab = 300, kLevels = 3;

std::string small_artifact(bool has_mixer = true);

// Writes bytes to a new temporary file and returns its path.
std::string write_temporary(const std::string& bytes);

}  // namespace edge_test
