// Tokens to text as they come, never a part of a character.
#pragma once
#include <cstdint>
#include <string>

#include "tokenizer.h"

namespace edge {

class StreamDecoder {
public:
    // `tokenizer` must outlive this. `special`: with special tokens. `at_start`: the tokens begin a text, so that a space
    // which the tokenizer put there is taken away again; false when they continue one.
    StreamDecoder(const Tokenizer& tokenizer, bool special, bool at_start);

    // Appends the characters that are complete now. Bytes that cannot become one turn into U+FFFD.
    void push(int32_t id, std::string& out);
    // Appends a last U+FFFD if the stream ended inside a character. The decoder can then begin anew, as a continuation.
    void finish(std::string& out);

private:
    const Tokenizer& tokenizer_;
    bool special_;
    bool strip_space_;
    std::string pending_;  // at most 3 bytes between calls
};

}  // namespace edge
