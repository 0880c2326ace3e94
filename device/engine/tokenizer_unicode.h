// UTF-8, character classes and Unicode NFC, as far as tokenizers need them. Tables: unicode_tables.h.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace edge {

enum class CharacterClass : uint8_t { other = 0, letter = 1, number = 2, space = 3 };

struct Character {
    char32_t code;
    uint32_t n_bytes;
};

// The first character of `text`, which is not empty and valid UTF-8.
inline Character first_character(std::string_view text) {
    const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text[i])); };
    const char32_t lead = byte(0);
    if (lead < 0x80) return {lead, 1};
    if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
    if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
    return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

// How a byte sequence of any kind begins.
struct Utf8Prefix {
    enum State { complete, invalid, cut } state;  // cut: the text ends before the character does
    uint32_t n_bytes;                             // of the character, or of the part that one U+FFFD replaces
};
Utf8Prefix utf8_prefix(std::string_view text);

bool is_valid_utf8(std::string_view text);
// Every longest invalid part becomes one U+FFFD, as in Unicode section 3.9 (and Python's errors="replace").
std::string repair_utf8(std::string_view text);
void append_utf8(char32_t code, std::string& out);

CharacterClass character_class(char32_t code);
bool is_split_digit(char32_t code);  // what the step `digits` splits off: numbers, in a newer Unicode than character_class

// Canonical composition of valid UTF-8.
std::string normalize_nfc(std::string_view text);

}  // namespace edge
