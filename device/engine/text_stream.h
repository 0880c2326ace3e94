// An answer's tokens to the text that may be shown: whole characters, and nothing of a stop string.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "text_filter.h"
#include "tokenizer_stream.h"

namespace edge {

class TextStream {
public:
    // `tokenizer` must outlive this. The tokens continue a text; special ones are not shown.
    TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops)
        : decoder_(tokenizer, false, false), filter_(std::move(stops)) {}

    // Appends to `shown` what may be shown now. True: a stop string was met, and nothing more may be pushed.
    bool push(int32_t token, std::string& shown) {
        std::string text;
        decoder_.push(token, text);
        return filter_.push(text, shown);
    }

    // The end of the tokens: appends what was held back. True: half a character became U+FFFD, and that ended a stop string.
    bool finish(std::string& shown) {
        std::string text;
        decoder_.finish(text);
        if (filter_.push(text, shown)) return true;
        filter_.finish(shown);
        return false;
    }

    size_t n_held_bytes() const { return filter_.n_held_bytes(); }

private:
    StreamDecoder decoder_;
    TextFilter filter_;
};

}  // namespace edge
