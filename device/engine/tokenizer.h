// Text to tokens and back, on the tables of an artifact as they lie in the mapped file (formats/SPEC.md section 7).
//
// The ids equal those of the Hugging Face `tokenizers` library. Nothing is copied or indexed at load: words are found by
// binary search, and all that a Tokenizer has beside its tables is sizeof(Tokenizer). It never changes after its
// constructor, so threads may share it.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "errors.h"
#include "tokenizer_split.h"

namespace edge {

enum class TokenizerModel : uint8_t { byte_bpe, sentencepiece_bpe };

// Where a space (as U+2581) is put before text. A piece is what lies between two special tokens.
enum class SpacePrefix : uint8_t {
    none,
    piece,  // before every piece, even one that begins with a space
    each,   // before every piece that does not begin with one
    first,  // the same, but only at the beginning of the text
};

// The header field `tokenizer`, as tokenizer_description.cpp reads it.
struct TokenizerDescription {
    TokenizerModel model = TokenizerModel::byte_bpe;
    uint32_t n_tokens = 0;
    uint32_t n_merges = 0;
    bool nfc = false;  // text is brought into Unicode NFC
    std::vector<SplitStep> pre_tokenizer;
    SpacePrefix space_prefix = SpacePrefix::none;
    bool strip_leading_space = false;  // decoded text loses one leading space
    bool byte_fallback = false;        // characters without a token become tokens of their bytes
    bool fuse_unk = false;             // neighbouring unknown characters become one unk_id
    bool ignore_merges = false;        // a piece that is a token itself is not merged from its parts
    bool add_bos = false;
    int32_t bos_id = -1;  // -1: none
    int32_t unk_id = -1;  // -1: unknown characters vanish
    std::vector<int32_t> eos_ids;
};

struct Merge {
    uint32_t left, right, rank, merged;  // ids; the lowest rank is merged first
};

// Views into the mapped file.
struct TokenizerTables {
    std::span<const uint8_t> bytes;     // all tokens' bytes
    std::span<const uint32_t> offsets;  // (n_tokens + 1)
    std::span<const uint8_t> kinds;     // (n_tokens): TokenKind | TokenFlag
    std::span<const uint32_t> sorted;   // (n_tokens): ids by bytes, then by id
    std::span<const Merge> merges;      // (n_merges): by left, then right
};

enum TokenKind : uint8_t { kNormal = 0, kSpecial = 1, kUserDefined = 2, kByte = 3, kUnused = 4, kKindMask = 7 };
enum TokenFlag : uint8_t { kTakesSpaceBefore = 8, kTakesSpaceAfter = 16, kNormalized = 32, kKnownBits = 63 };

class Tokenizer {
public:
    // Checks every entry of the tables, which must outlive this object. Throws ArtifactError or UnsupportedError.
    Tokenizer(const TokenizerTables& tables, TokenizerDescription description);

    // `special`: text may name special tokens. `add_bos`: a model trained with a first token gets it.
    // Invalid UTF-8 is read as U+FFFD. Throws ArgumentError for more than 1 GiB of text.
    std::vector<int32_t> encode(std::string_view text, bool special, bool add_bos) const;

    // Bytes of the tokens; `special`: with special tokens. They are UTF-8 if the tokens are complete characters.
    std::string decode(std::span<const int32_t> ids, bool special) const;

    // Appends what `id` stands for; ids outside the vocabulary stand for nothing.
    void append_token(int32_t id, bool special, std::string& out) const;

    bool is_end_token(int32_t id) const;
    const TokenizerDescription& description() const { return description_; }

    // The tables were checked, but whoever may write to the file can still change them: nothing outside of them is read then.
    std::string_view token(uint32_t id) const {
        if (id >= description_.n_tokens) return {};
        const uint32_t begin = tables_.offsets[id], end = tables_.offsets[id + 1];
        if (begin > end || end > tables_.bytes.size()) return {};
        return {reinterpret_cast<const char*>(tables_.bytes.data()) + begin, end - begin};
    }
    TokenKind kind(uint32_t id) const {
        return id < description_.n_tokens ? static_cast<TokenKind>(tables_.kinds[id] & kKindMask) : kUnused;
    }
    bool has_flag(uint32_t id, TokenFlag flag) const {
        return id < description_.n_tokens && (tables_.kinds[id] & flag) != 0;
    }

    // -1: there is no such token among the normal and the user-defined ones.
    int32_t find_token(std::string_view text) const;
    int32_t find_byte(uint8_t byte) const { return byte_tokens_[byte]; }
    // nullptr: the two do not merge.
    const Merge* find_merge(uint32_t left, uint32_t right) const;

    struct AddedMatch {
        size_t begin, end;
        uint32_t id;
    };
    // The leftmost, then longest added token at or behind `from`: of those found in raw text, or in normalized text.
    // begin == npos: none.
    AddedMatch find_added(std::string_view text, size_t from, bool normalized) const;

private:
    void check_description() const;
    void check_offsets() const;
    void check_order() const;
    void check_merges() const;
    void index_tokens();
    int32_t search_sorted(std::string_view text) const;
    int32_t longest_added(std::string_view text, bool normalized, size_t& n_bytes) const;
    void note_added(uint32_t id);

    TokenizerTables tables_;
    TokenizerDescription description_;
    std::array<int32_t, 256> single_tokens_{};  // tokens of one byte, as find_token gives them
    std::array<int32_t, 256> byte_tokens_{};    // tokens of kind byte
    // For added tokens in raw and in normalized text: are there any, and which two bytes can they begin with, a bit each.
    std::array<bool, 2> has_added_{};
    std::array<std::array<uint64_t, 1024>, 2> pairs_{};
};

}  // namespace edge
