// The fields of a model and its blocks that format 2 added (SPEC.md section 3).
#pragma once
#include <string>

#include "artifact.h"
#include "json_fields.h"

namespace edge {

// Reads those of a block that are there; the others keep the values that mean "none". Its kind, axes and norms are read.
void read_optional_fields(const Json& entry, const std::string& where, BlockSpec& block);

// A number of the model or of a block from 1e-6 to 1e6; 0 where it is absent.
float optional_cap(const Json& entry, const char* key, const std::string& where);

// Rule 1.7: a file of format 1 has none of them, and one of format 2 no field that this engine does not know. `model` has passed
// every other check.
void check_known_fields(const Json& model, int major);

}  // namespace edge
