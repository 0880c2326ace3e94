// Reads the header field `tokenizer` (formats/SPEC.md section 7).
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "tokenizer.h"

namespace edge {

// Throws ArtifactError for missing or mistyped fields, UnsupportedError for models and steps that are not known here.
TokenizerDescription parse_tokenizer(const nlohmann::json& field);

}  // namespace edge
