#include "tokenizer_split.h"

#include "tokenizer_unicode.h"

namespace edge {
namespace {

// A place in the text; past the end, `code` is none and the class is `other`.
class Cursor {
public:
    static constexpr char32_t kEnd = 0xFFFFFFFF;

    explicit Cursor(std::string_view text) : text_(text) { read(); }
    size_t position() const { return position_; }
    char32_t code() const { return code_; }
    bool at_end() const { return code_ == kEnd; }
    bool is(CharacterClass wanted) const { return class_ == wanted && !at_end(); }
    bool is_newline() const { return code_ == U'\r' || code_ == U'\n'; }
    void advance() {
        position_ += n_bytes_;
        read();
    }
    void skip(CharacterClass wanted) {
        while (is(wanted)) advance();
    }

private:
    void read() {
        if (position_ == text_.size()) {
            code_ = kEnd;
            return;
        }
        const Character c = first_character(text_.substr(position_));
        code_ = c.code;
        n_bytes_ = c.n_bytes;
        class_ = character_class(code_);
    }

    std::string_view text_;
    size_t position_ = 0;
    char32_t code_ = kEnd;
    uint32_t n_bytes_ = 0;
    CharacterClass class_ = CharacterClass::other;
};

// 's 't 're 've 'm 'll 'd at the beginning: their bytes, or 0. In any case, U+017F counts as an s.
size_t contraction(std::string_view text, bool any_case) {
    if (text.size() < 2 || text[0] != '\'') return 0;
    if (any_case && text.substr(1, 2) == "\xC5\xBF") return 3;
    const auto letter = [&](size_t i) {
        const char c = i < text.size() ? text[i] : '\0';
        return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    };
    const char a = letter(1), b = letter(2);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

// \s+(?!\S)|\s+ : white space but for its last character, which belongs to what follows; all of it at the end of the text.
size_t white_space(Cursor cursor) {
    size_t last = 0;
    while (cursor.is(CharacterClass::space)) {
        last = cursor.position();
        cursor.advance();
    }
    return cursor.at_end() || last == 0 ? cursor.position() : last;
}

size_t gpt2_piece(std::string_view text) {
    if (const size_t n = contraction(text, false)) return n;
    Cursor cursor(text);
    if (cursor.code() == U' ') cursor.advance();
    for (const CharacterClass kind : {CharacterClass::letter, CharacterClass::number, CharacterClass::other}) {
        if (cursor.is(kind)) {
            cursor.skip(kind);
            return cursor.position();
        }
    }
    return white_space(Cursor(text));
}

// \s*[\r\n]+ : white space up to its last line break, or 0.
size_t line_breaks(Cursor cursor) {
    size_t end = 0;
    while (cursor.is(CharacterClass::space)) {
        const bool newline = cursor.is_newline();
        cursor.advance();
        if (newline) end = cursor.position();
    }
    return end;
}

size_t llama3_piece(std::string_view text, int max_digits) {
    if (const size_t n = contraction(text, true)) return n;
    const Cursor begin(text);
    Cursor cursor = begin;
    if (!cursor.is(CharacterClass::letter) && !cursor.is(CharacterClass::number) && !cursor.is_newline()) cursor.advance();
    if (cursor.is(CharacterClass::letter)) {
        cursor.skip(CharacterClass::letter);
        return cursor.position();
    }
    cursor = begin;
    if (cursor.is(CharacterClass::number)) {
        for (int i = 0; i < max_digits && cursor.is(CharacterClass::number); ++i) cursor.advance();
        return cursor.position();
    }
    if (cursor.code() == U' ') cursor.advance();
    if (cursor.is(CharacterClass::other)) {
        cursor.skip(CharacterClass::other);
        while (cursor.is_newline()) cursor.advance();
        return cursor.position();
    }
    const size_t end = line_breaks(begin);
    return end ? end : white_space(begin);
}

size_t digits_piece(std::string_view text, bool alone) {
    const Character first = first_character(text);
    const bool digit = is_split_digit(first.code);
    size_t end = first.n_bytes;
    if (digit && alone) return end;
    while (end < text.size()) {
        const Character c = first_character(text.substr(end));
        if (is_split_digit(c.code) != digit) break;
        end += c.n_bytes;
    }
    return end;
}

}  // namespace

size_t first_piece(SplitStep step, std::string_view text) {
    switch (step) {
        case SplitStep::digits: return digits_piece(text, true);
        case SplitStep::digit_runs: return digits_piece(text, false);
        case SplitStep::gpt2: return gpt2_piece(text);
        case SplitStep::llama3: return llama3_piece(text, 3);
        case SplitStep::qwen2: return llama3_piece(text, 1);
        case SplitStep::words: {
            const size_t next = text.find("\xE2\x96\x81", 1);
            return next == std::string_view::npos ? text.size() : next;
        }
    }
    return text.size();
}

}  // namespace edge
