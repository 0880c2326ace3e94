#include "tokenizer_stream.h"

#include "tokenizer_unicode.h"

namespace edge {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool special, bool at_start)
    : tokenizer_(tokenizer), special_(special), strip_space_(at_start && tokenizer.description().strip_leading_space) {}

void StreamDecoder::push(int32_t id, std::string& out) {
    tokenizer_.append_token(id, special_, pending_);
    if (strip_space_ && !pending_.empty()) {
        if (pending_.front() == ' ') pending_.erase(0, 1);
        strip_space_ = false;
    }
    size_t end = pending_.size();  // what lies behind is the beginning of a character
    for (size_t back = 1; back <= 3 && back <= pending_.size(); ++back) {
        const std::string_view tail = std::string_view(pending_).substr(pending_.size() - back);
        if (utf8_prefix(tail).state == Utf8Prefix::cut) end = pending_.size() - back;
    }
    out += repair_utf8(std::string_view(pending_).substr(0, end));
    pending_.erase(0, end);
}

void StreamDecoder::finish(std::string& out) {
    out += repair_utf8(pending_);
    pending_.clear();
    strip_space_ = false;
}

}  // namespace edge
