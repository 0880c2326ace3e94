// Tokenizer::encode: added tokens are taken out, the text between them is normalized, cut into words and merged.
#include <algorithm>
#include <string>
#include <vector>

#include "tokenizer.h"
#include "tokenizer_unicode.h"

namespace edge {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581
constexpr size_t kMaxTextBytes = size_t{1} << 30;

// Byte-pair merging of one word: the pair of lowest rank first, the leftmost among equals.
class Merger {
public:
    explicit Merger(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

    void add(int32_t id) {
        const int32_t n = static_cast<int32_t>(symbols_.size());
        if (n > 0) symbols_.back().next = n;
        symbols_.push_back({static_cast<uint32_t>(id), n - 1, -1});
    }

    // Merges what was added, appends the ids to `out`, and is empty again.
    void finish(std::vector<int32_t>& out) {
        for (size_t i = 0; i + 1 < symbols_.size(); ++i) offer(static_cast<int32_t>(i));
        while (!queue_.empty()) {
            std::pop_heap(queue_.begin(), queue_.end());
            const Candidate top = queue_.back();
            queue_.pop_back();
            if (is_current(top)) merge(top);
        }
        for (int32_t i = symbols_.empty() ? -1 : 0; i >= 0; i = symbols_[i].next) {
            out.push_back(static_cast<int32_t>(symbols_[i].id));
        }
        symbols_.clear();
    }

private:
    static constexpr uint32_t kGone = UINT32_MAX;

    struct Symbol {
        uint32_t id;
        int32_t previous, next;  // -1: none
    };
    struct Candidate {
        const Merge* pair;
        int32_t position;
        bool operator<(const Candidate& other) const {  // the heap's top is its largest element
            return pair->rank != other.pair->rank ? pair->rank > other.pair->rank : position > other.position;
        }
    };

    void offer(int32_t position) {
        const Symbol& left = symbols_[position];
        if (const Merge* pair = tokenizer_.find_merge(left.id, symbols_[left.next].id)) {
            queue_.push_back({pair, position});
            std::push_heap(queue_.begin(), queue_.end());
        }
    }

    // A neighbour may have changed since. What counts is that both still merge into the same token.
    bool is_current(const Candidate& candidate) const {
        const Symbol& left = symbols_[candidate.position];
        if (left.id == kGone || left.next < 0) return false;
        const uint32_t right = symbols_[left.next].id;
        if (left.id == candidate.pair->left && right == candidate.pair->right) return true;
        const Merge* now = tokenizer_.find_merge(left.id, right);
        return now && now->merged == candidate.pair->merged;
    }

    void merge(const Candidate& candidate) {
        Symbol& left = symbols_[candidate.position];
        Symbol& right = symbols_[left.next];
        left.id = candidate.pair->merged;
        left.next = right.next;
        right.id = kGone;
        if (left.next >= 0) symbols_[left.next].previous = candidate.position;
        if (left.previous >= 0) offer(left.previous);
        if (left.next >= 0) offer(candidate.position);
    }

    const Tokenizer& tokenizer_;
    std::vector<Symbol> symbols_;
    std::vector<Candidate> queue_;
};

size_t leading_space(std::string_view text) {
    size_t n = 0;
    while (n < text.size()) {
        const Character c = first_character(text.substr(n));
        if (character_class(c.code) != CharacterClass::space) break;
        n += c.n_bytes;
    }
    return n;
}

size_t trailing_space(std::string_view text) {
    size_t end = text.size();
    while (end > 0) {
        size_t begin = end - 1;
        while ((static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
        if (character_class(first_character(text.substr(begin)).code) != CharacterClass::space) break;
        end = begin;
    }
    return text.size() - end;
}

std::string mark_spaces(std::string_view text) {
    std::string out;
    out.reserve(text.size() + text.size() / 2);
    for (const char c : text) c == ' ' ? out.append(kSpaceMark) : out.append(1, c);
    return out;
}

class Encoder {
public:
    Encoder(const Tokenizer& tokenizer, bool special, std::vector<int32_t>& out)
        : tokenizer_(tokenizer), description_(tokenizer.description()), special_(special), merger_(tokenizer), out_(out) {}

    // Raw text: added tokens that are searched before normalization.
    void encode(std::string_view text) {
        take_added(text, false, [&](std::string_view piece, bool first) { normalize(piece, first); });
    }

private:
    template <typename Between>
    void take_added(std::string_view text, bool normalized, const Between& between) {
        size_t done = 0;  // text before this is encoded
        for (size_t from = 0;;) {
            const Tokenizer::AddedMatch match = tokenizer_.find_added(text, from, normalized);
            if (match.begin == std::string_view::npos) break;
            from = match.end;
            if (tokenizer_.kind(match.id) == kSpecial && !special_) continue;
            // It can begin in white space that the token before it took; it counts nevertheless, as in `tokenizers`.
            size_t begin = std::max(match.begin, done), end = match.end;
            if (tokenizer_.has_flag(match.id, kTakesSpaceBefore)) begin -= trailing_space(text.substr(done, begin - done));
            if (tokenizer_.has_flag(match.id, kTakesSpaceAfter)) end += leading_space(text.substr(end));
            if (done < begin) between(text.substr(done, begin - done), done == 0);
            out_.push_back(static_cast<int32_t>(match.id));
            done = end;
        }
        if (done < text.size()) between(text.substr(done), done == 0);
    }

    // `first`: the piece stands at the beginning of the whole text.
    void normalize(std::string_view piece, bool first) {
        std::string changed;
        if (description_.nfc) {
            changed = normalize_nfc(piece);
            piece = changed;
        } else if (description_.space_prefix == SpacePrefix::piece) {
            changed = std::string(kSpaceMark) + mark_spaces(piece);
            piece = changed;
        }
        take_added(piece, true, [&](std::string_view part, bool at_begin) { prepare(part, first && at_begin); });
    }

    void prepare(std::string_view text, bool first) {
        if (description_.model == TokenizerModel::byte_bpe || description_.space_prefix == SpacePrefix::piece) {
            cut(text, 0);
            return;
        }
        std::string marked = mark_spaces(text);
        const SpacePrefix prefix = description_.space_prefix;
        const bool wanted = prefix == SpacePrefix::each || (prefix == SpacePrefix::first && first);
        if (wanted && !marked.starts_with(kSpaceMark)) marked.insert(0, kSpaceMark);
        cut(marked, 0);
    }

    void cut(std::string_view text, size_t step) {
        if (step == description_.pre_tokenizer.size()) {
            encode_word(text);
            return;
        }
        while (!text.empty()) {
            const size_t n = first_piece(description_.pre_tokenizer[step], text);
            cut(text.substr(0, n), step + 1);
            text.remove_prefix(n);
        }
    }

    void encode_word(std::string_view word) {
        if (description_.ignore_merges) {
            const int32_t whole = tokenizer_.find_token(word);
            if (whole >= 0) {
                out_.push_back(whole);
                return;
            }
        }
        const bool bytewise = description_.model == TokenizerModel::byte_bpe;
        bool unknown_before = false;
        while (!word.empty()) {
            const size_t n = bytewise ? 1 : first_character(word).n_bytes;
            const std::string_view symbol = word.substr(0, n);
            word.remove_prefix(n);
            const int32_t id = tokenizer_.find_token(symbol);
            const bool unknown = id < 0 && !description_.byte_fallback;
            if (id >= 0) {
                merger_.add(id);
            } else if (description_.byte_fallback) {
                for (const char byte : symbol) merger_.add(tokenizer_.find_byte(static_cast<uint8_t>(byte)));
            } else if (description_.unk_id >= 0 && !(unknown_before && description_.fuse_unk)) {
                merger_.add(description_.unk_id);
            }
            unknown_before = unknown;
        }
        merger_.finish(out_);
    }

    const Tokenizer& tokenizer_;
    const TokenizerDescription& description_;
    bool special_;
    Merger merger_;
    std::vector<int32_t>& out_;
};

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool special, bool add_bos) const {
    if (text.size() > kMaxTextBytes) {
        throw ArgumentError("the text has " + std::to_string(text.size()) + " bytes, the tokenizer takes at most " +
                            std::to_string(kMaxTextBytes) + "\nhint: encode it in parts");
    }
    std::string repaired;
    if (!is_valid_utf8(text)) {
        repaired = repair_utf8(text);
        text = repaired;
    }
    std::vector<int32_t> ids;
    if (add_bos && description_.add_bos) ids.push_back(description_.bos_id);
    Encoder(*this, special, ids).encode(text);
    return ids;
}

}  // namespace edge
