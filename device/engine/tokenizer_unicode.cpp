#include "tokenizer_unicode.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "unicode_tables.h"

namespace edge {
namespace {

constexpr char32_t kReplacement = 0xFFFD;
constexpr uint32_t kCodeMask = 0x1FFFFF;  // 21 bits

// Hangul syllables follow from arithmetic (Unicode section 3.12).
constexpr char32_t kSyllable = 0xAC00, kLead = 0x1100, kVowel = 0x1161, kTail = 0x11A7;
constexpr uint32_t kLeads = 19, kVowels = 21, kTails = 28, kSyllables = kLeads * kVowels * kTails;

uint32_t class_of_run(const uint32_t* begin, const uint32_t* end, uint32_t shift, char32_t code) {
    const uint32_t* after = std::lower_bound(begin, end, static_cast<uint32_t>(code + 1) << shift);
    return after[-1] & ((1u << shift) - 1);
}

uint32_t character_flags(char32_t code) {
    return class_of_run(std::begin(kCharacterClasses), std::end(kCharacterClasses), 3, code);
}

uint32_t combining_class(char32_t code) {
    return code < 0x300 ? 0 : class_of_run(std::begin(kCombiningClasses), std::end(kCombiningClasses), 8, code);
}

struct Mark {
    char32_t code;
    uint32_t combining;
};

void decompose(char32_t code, std::vector<Mark>& out) {
    if (code - kSyllable < kSyllables) {
        const uint32_t index = code - kSyllable;
        out.push_back({kLead + index / (kVowels * kTails), 0});
        out.push_back({kVowel + index / kTails % kVowels, 0});
        if (index % kTails) out.push_back({kTail + index % kTails, 0});
        return;
    }
    const uint64_t* found = std::lower_bound(std::begin(kDecompositions), std::end(kDecompositions),
                                             static_cast<uint64_t>(code) << 42);
    if (found == std::end(kDecompositions) || *found >> 42 != code) {
        out.push_back({code, combining_class(code)});
        return;
    }
    decompose(static_cast<char32_t>(*found >> 21 & kCodeMask), out);  // at most 4 deep: the tables are ours
    if (*found & kCodeMask) decompose(static_cast<char32_t>(*found & kCodeMask), out);
}

// The character that stands for the pair, or 0.
char32_t compose(char32_t first, char32_t second) {
    if (first - kLead < kLeads && second - kVowel < kVowels) {
        return kSyllable + ((first - kLead) * kVowels + second - kVowel) * kTails;
    }
    const bool open_syllable = first - kSyllable < kSyllables && (first - kSyllable) % kTails == 0;
    if (open_syllable && second - kTail - 1 < kTails - 1) return first + (second - kTail);
    const uint64_t pair = static_cast<uint64_t>(first) << 21 | second;
    const auto pair_of = [](uint16_t index) { return kDecompositions[index] & ((uint64_t{1} << 42) - 1); };
    const uint16_t* found = std::lower_bound(std::begin(kCompositions), std::end(kCompositions), pair,
                                             [&](uint16_t index, uint64_t value) { return pair_of(index) < value; });
    if (found == std::end(kCompositions) || pair_of(*found) != pair) return 0;
    return static_cast<char32_t>(kDecompositions[*found] >> 42);
}

// Marks behind a starter are put in the order of their classes.
void order_marks(std::vector<Mark>& marks) {
    for (auto begin = marks.begin(); begin != marks.end();) {
        if (begin->combining == 0) {
            ++begin;
            continue;
        }
        const auto end = std::find_if(begin, marks.end(), [](const Mark& m) { return m.combining == 0; });
        std::stable_sort(begin, end, [](const Mark& a, const Mark& b) { return a.combining < b.combining; });
        begin = end;
    }
}

// In place; returns how many remain. A mark joins the last starter when no mark of its class or higher stands between.
size_t compose_all(std::vector<Mark>& marks) {
    size_t n = 0, starter = SIZE_MAX;
    uint32_t last_class = 0;
    for (const Mark mark : marks) {
        const bool adjacent = starter != SIZE_MAX && n == starter + 1;
        if (starter != SIZE_MAX && (adjacent || (last_class != 0 && last_class < mark.combining))) {
            if (const char32_t joined = compose(marks[starter].code, mark.code)) {
                marks[starter].code = joined;
                continue;
            }
        }
        if (mark.combining == 0) starter = n;
        last_class = mark.combining;
        marks[n++] = mark;
    }
    return n;
}

}  // namespace

Utf8Prefix utf8_prefix(std::string_view text) {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
    const uint8_t lead = byte(0);
    if (lead < 0x80) return {Utf8Prefix::complete, 1};
    const uint32_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    if (length == 0) return {Utf8Prefix::invalid, 1};
    // The second byte is limited: no overlong forms, no surrogates, nothing above U+10FFFF.
    const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    for (uint32_t i = 1; i < length; ++i) {
        if (i == text.size()) return {Utf8Prefix::cut, i};
        if (byte(i) < (i == 1 ? low : 0x80) || byte(i) > (i == 1 ? high : 0xBF)) return {Utf8Prefix::invalid, i};
    }
    return {Utf8Prefix::complete, length};
}

bool is_valid_utf8(std::string_view text) {
    while (!text.empty()) {
        const Utf8Prefix prefix = utf8_prefix(text);
        if (prefix.state != Utf8Prefix::complete) return false;
        text.remove_prefix(prefix.n_bytes);
    }
    return true;
}

std::string repair_utf8(std::string_view text) {
    std::string out;
    out.reserve(text.size() + 8);
    while (!text.empty()) {
        const Utf8Prefix prefix = utf8_prefix(text);
        if (prefix.state == Utf8Prefix::complete) {
            out.append(text.substr(0, prefix.n_bytes));
        } else {
            append_utf8(kReplacement, out);
        }
        text.remove_prefix(prefix.n_bytes);
    }
    return out;
}

void append_utf8(char32_t code, std::string& out) {
    const auto push = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
        push(code);
    } else if (code < 0x800) {
        push(0xC0 | code >> 6);
        push(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        push(0xE0 | code >> 12);
        push(0x80 | (code >> 6 & 0x3F));
        push(0x80 | (code & 0x3F));
    } else {
        push(0xF0 | code >> 18);
        push(0x80 | (code >> 12 & 0x3F));
        push(0x80 | (code >> 6 & 0x3F));
        push(0x80 | (code & 0x3F));
    }
}

CharacterClass character_class(char32_t code) {
    if (code < 0x80) {
        if ((code | 0x20) - U'a' < 26) return CharacterClass::letter;
        if (code - U'0' < 10) return CharacterClass::number;
        return code == U' ' || code - U'\t' < 5 ? CharacterClass::space : CharacterClass::other;
    }
    return static_cast<CharacterClass>(character_flags(code) & 3);
}

bool is_split_digit(char32_t code) {
    return code < 0x80 ? code - U'0' < 10 : (character_flags(code) & 4) != 0;
}

std::string normalize_nfc(std::string_view text) {
    // Below U+0300 nothing combines, so everything is composed already. Lead bytes tell: 0xCC begins U+0300.
    const bool plain = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0xCC; });
    if (plain) return std::string(text);
    std::vector<Mark> marks;
    marks.reserve(text.size());
    while (!text.empty()) {
        const Character c = first_character(text);
        decompose(c.code, marks);
        text.remove_prefix(c.n_bytes);
    }
    order_marks(marks);
    marks.resize(compose_all(marks));
    std::string out;
    for (const Mark& mark : marks) append_utf8(mark.code, out);
    return out;
}

}  // namespace edge
