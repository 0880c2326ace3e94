// Pre-tokenizers: text is cut into pieces, and no token reaches across a cut.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace edge {

enum class SplitStep : uint8_t {
    digits,      // every number character alone
    digit_runs,  // runs of number characters
    gpt2,        // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    llama3,      // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|...
    qwen2,       // like llama3, with single numbers
    words,       // a cut before every U+2581
};

// Bytes of the first piece. `text` is valid UTF-8 and not empty; no step looks behind, so pieces can be taken one by one.
size_t first_piece(SplitStep step, std::string_view text);

}  // namespace edge
