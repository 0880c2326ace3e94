#include "tokenizer.h"

#include <algorithm>
#include <utility>

#include "tokenizer_unicode.h"

namespace edge {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581
constexpr size_t kMaxEqual = 64;  // tokens with the same bytes: a search looks at each of them

std::string entry(const char* table, size_t index) { return std::string("tokenizer.") + table + "[" + std::to_string(index) + "]"; }

void check_size(const char* table, size_t found, uint64_t expected) {
    if (found != expected) {
        throw ArtifactError("tokenizer." + std::string(table) + " has " + std::to_string(found) + " entries, expected " +
                            std::to_string(expected) + " (section 7)");
    }
}

void check_id(const std::string& what, int64_t id, uint32_t n_tokens) {
    if (id < 0 || id >= n_tokens) {
        throw ArtifactError(what + " is token " + std::to_string(id) + ", but there are " + std::to_string(n_tokens) +
                            " tokens (section 7)");
    }
}

}  // namespace

Tokenizer::Tokenizer(const TokenizerTables& tables, TokenizerDescription description)
    : tables_(tables), description_(std::move(description)) {
    const uint64_t n = description_.n_tokens;
    check_size("offsets", tables_.offsets.size(), n + 1);
    check_size("kinds", tables_.kinds.size(), n);
    check_size("sorted", tables_.sorted.size(), n);
    check_size("merges", tables_.merges.size(), description_.n_merges);
    check_description();
    check_offsets();
    check_order();
    check_merges();
    index_tokens();
}

void Tokenizer::check_description() const {
    const TokenizerDescription& d = description_;
    if (d.n_tokens == 0 || d.n_tokens > INT32_MAX) {
        throw ArtifactError("tokenizer.n_tokens is " + std::to_string(d.n_tokens) + ", expected 1 to 2147483647 (section 7)");
    }
    if (d.bos_id != -1) check_id("tokenizer.bos_id", d.bos_id, d.n_tokens);
    if (d.unk_id != -1) check_id("tokenizer.unk_id", d.unk_id, d.n_tokens);
    for (const int32_t id : d.eos_ids) check_id("tokenizer.eos_ids", id, d.n_tokens);
    if (d.add_bos && d.bos_id == -1) throw ArtifactError("tokenizer.add_bos is set, but bos_id is -1 (section 7)");
    const bool pieces = d.model == TokenizerModel::sentencepiece_bpe;
    for (const SplitStep step : d.pre_tokenizer) {
        if ((step == SplitStep::words) != pieces) {
            throw UnsupportedError("tokenizer.pre_tokenizer has a step that does not belong to tokenizer.model");
        }
    }
    if (pieces ? d.nfc : d.byte_fallback || d.space_prefix != SpacePrefix::none) {
        throw UnsupportedError(pieces ? "tokenizer.normalizer is nfc, which sentencepiece_bpe does not have here"
                                      : "tokenizer.byte_fallback or space_prefix is set, which byte_bpe does not have");
    }
}

void Tokenizer::check_offsets() const {
    const std::span<const uint32_t> offsets = tables_.offsets;
    if (offsets[0] != 0) throw ArtifactError("tokenizer.offsets[0] is not 0 (section 7)");
    for (size_t i = 1; i < offsets.size(); ++i) {
        if (offsets[i] < offsets[i - 1]) throw ArtifactError(entry("offsets", i) + " is lower than the one before it (section 7)");
    }
    if (offsets.back() != tables_.bytes.size()) {
        throw ArtifactError("tokenizer.offsets ends at " + std::to_string(offsets.back()) + ", but tokenizer.bytes has " +
                            std::to_string(tables_.bytes.size()) + " bytes (section 7)");
    }
}

// Strictly ascending by (bytes, id): with as many entries as tokens, all in range, it is a permutation.
void Tokenizer::check_order() const {
    const std::span<const uint32_t> sorted = tables_.sorted;
    size_t n_equal = 1;
    for (size_t i = 0; i < sorted.size(); ++i) {
        if (sorted[i] >= description_.n_tokens) check_id(entry("sorted", i), sorted[i], description_.n_tokens);
        if (i == 0) continue;
        const int order = token(sorted[i - 1]).compare(token(sorted[i]));
        if (order > 0 || (order == 0 && sorted[i - 1] >= sorted[i])) {
            throw ArtifactError(entry("sorted", i) + " is not behind the one before it (section 7)");
        }
        n_equal = order == 0 && !token(sorted[i]).empty() ? n_equal + 1 : 1;
        if (n_equal > kMaxEqual) {
            throw ArtifactError("more than " + std::to_string(kMaxEqual) + " tokens have the bytes of token " +
                                std::to_string(sorted[i]) + " (section 7)");
        }
    }
}

void Tokenizer::check_merges() const {
    const Merge* before = nullptr;
    for (const Merge& merge : tables_.merges) {
        const size_t index = static_cast<size_t>(&merge - tables_.merges.data());
        for (const uint32_t id : {merge.left, merge.right, merge.merged}) {
            if (id >= description_.n_tokens) check_id(entry("merges", index), id, description_.n_tokens);
        }
        if (before && std::pair(before->left, before->right) >= std::pair(merge.left, merge.right)) {
            throw ArtifactError(entry("merges", index) + " is not behind the one before it (section 7)");
        }
        before = &merge;
    }
}

// Notes which bytes are tokens and how added tokens begin, and checks the kinds on the way.
void Tokenizer::index_tokens() {
    single_tokens_.fill(-1);
    byte_tokens_.fill(-1);
    for (const uint32_t id : tables_.sorted) {
        const std::string_view text = token(id);
        const TokenKind k = kind(id);
        if (tables_.kinds[id] > kKnownBits || k > kUnused) throw ArtifactError(entry("kinds", id) + " is unknown (section 7)");
        if (k == kUnused) continue;
        if (text.empty()) throw ArtifactError("token " + std::to_string(id) + " is empty, but not of kind unused (section 7)");
        const uint8_t lead = static_cast<uint8_t>(text[0]);
        if (k == kByte) {
            if (text.size() != 1) throw ArtifactError("token " + std::to_string(id) + " is of kind byte, but longer (section 7)");
            byte_tokens_[lead] = static_cast<int32_t>(id);
        } else if (k != kNormal) {
            note_added(id);
        }
        if (text.size() == 1 && (k == kNormal || k == kUserDefined)) {
            int32_t& single = single_tokens_[lead];
            const bool better = single >= 0 && k == kNormal && kind(static_cast<uint32_t>(single)) != kNormal;
            if (single < 0 || better) single = static_cast<int32_t>(id);
        }
    }
    for (int byte = 0; description_.byte_fallback && byte < 256; ++byte) {
        if (byte_tokens_[byte] < 0) {
            throw ArtifactError("tokenizer.byte_fallback is set, but byte " + std::to_string(byte) + " has no token (section 7)");
        }
    }
}

void Tokenizer::note_added(uint32_t id) {
    const std::string_view text = token(id);
    if (!is_valid_utf8(text)) throw ArtifactError("added token " + std::to_string(id) + " is not UTF-8 (section 7)");
    const bool normalized = has_flag(id, kNormalized);
    has_added_[normalized] = true;
    const size_t first = static_cast<size_t>(static_cast<uint8_t>(text[0])) << 8 |
                         (text.size() > 1 ? static_cast<uint8_t>(text[1]) : 0);
    const size_t last = text.size() > 1 ? first : first | 255;
    for (size_t bit = first; bit <= last; ++bit) pairs_[normalized][bit / 64] |= uint64_t{1} << bit % 64;
}

int32_t Tokenizer::search_sorted(std::string_view text) const {
    const auto less = [&](uint32_t id, std::string_view wanted) { return token(id) < wanted; };
    int32_t user_defined = -1;
    for (auto it = std::lower_bound(tables_.sorted.begin(), tables_.sorted.end(), text, less);
         it != tables_.sorted.end() && token(*it) == text; ++it) {
        if (kind(*it) == kNormal) return static_cast<int32_t>(*it);
        if (kind(*it) == kUserDefined && user_defined < 0) user_defined = static_cast<int32_t>(*it);
    }
    return user_defined;
}

int32_t Tokenizer::find_token(std::string_view text) const {
    return text.size() == 1 ? single_tokens_[static_cast<uint8_t>(text[0])] : search_sorted(text);
}

const Merge* Tokenizer::find_merge(uint32_t left, uint32_t right) const {
    const uint64_t wanted = uint64_t{left} << 32 | right;
    const Merge* base = tables_.merges.data();
    for (size_t n = tables_.merges.size(); n > 0;) {  // `wanted`, if it is there, is in [base, base + n)
        const size_t half = n / 2;
        const uint64_t found = uint64_t{base[half].left} << 32 | base[half].right;
        if (found == wanted) return base + half;
        base = found < wanted ? base + half + 1 : base;
        n = found < wanted ? n - half - 1 : half;
    }
    return nullptr;
}

// Narrows the range of tokens that begin like `text`, byte by byte. `n_bytes`: of the token that is returned, 1 at least, also
// when the tables change meanwhile.
int32_t Tokenizer::longest_added(std::string_view text, bool normalized, size_t& n_bytes) const {
    int32_t best = -1;
    auto begin = tables_.sorted.begin(), end = tables_.sorted.end();
    for (size_t depth = 0; begin != end; ++depth) {
        for (; begin != end && token(*begin).size() == depth; ++begin) {
            const TokenKind k = kind(*begin);
            const bool added = k == kSpecial || k == kUserDefined;
            if (added && depth > 0 && has_flag(*begin, kNormalized) == normalized) {
                best = static_cast<int32_t>(*begin);
                n_bytes = depth;
            }
        }
        if (depth == text.size()) break;
        const auto byte_at = [&](uint32_t id) {
            const std::string_view found = token(id);
            return depth < found.size() ? static_cast<uint8_t>(found[depth]) : uint8_t{0};
        };
        const uint8_t wanted = static_cast<uint8_t>(text[depth]);
        begin = std::lower_bound(begin, end, wanted, [&](uint32_t id, uint8_t byte) { return byte_at(id) < byte; });
        end = std::upper_bound(begin, end, wanted, [&](uint8_t byte, uint32_t id) { return byte < byte_at(id); });
    }
    return best;
}

Tokenizer::AddedMatch Tokenizer::find_added(std::string_view text, size_t from, bool normalized) const {
    // Normalization put a space before every piece, and before these tokens too.
    const bool marked = normalized && description_.space_prefix == SpacePrefix::piece;
    for (size_t begin = from; has_added_[normalized] && begin < text.size(); ++begin) {
        std::string_view rest = text.substr(begin);
        if (marked) {
            if (!rest.starts_with(kSpaceMark) || rest.size() == kSpaceMark.size()) continue;
            rest.remove_prefix(kSpaceMark.size());
        }
        const size_t bit = static_cast<size_t>(static_cast<uint8_t>(rest[0])) << 8 |
                           (rest.size() > 1 ? static_cast<uint8_t>(rest[1]) : 0);
        if ((pairs_[normalized][bit / 64] >> bit % 64 & 1) == 0) continue;
        size_t n_bytes = 0;
        const int32_t id = longest_added(rest, normalized, n_bytes);
        if (id < 0) continue;
        return {begin, text.size() - rest.size() + n_bytes, static_cast<uint32_t>(id)};
    }
    return {std::string_view::npos, std::string_view::npos, 0};
}

void Tokenizer::append_token(int32_t id, bool special, std::string& out) const {
    if (id < 0 || static_cast<uint32_t>(id) >= description_.n_tokens) return;
    const TokenKind k = kind(static_cast<uint32_t>(id));
    if (k == kSpecial && !special) return;
    std::string_view text = token(static_cast<uint32_t>(id));
    if (description_.model == TokenizerModel::byte_bpe || k == kByte) {
        out.append(text);
        return;
    }
    for (size_t mark; (mark = text.find(kSpaceMark)) != std::string_view::npos;) {
        out.append(text.substr(0, mark)).push_back(' ');
        text.remove_prefix(mark + kSpaceMark.size());
    }
    out.append(text);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool special) const {
    std::string out;
    for (const int32_t id : ids) append_token(id, special, out);
    if (description_.strip_leading_space && out.starts_with(' ')) out.erase(0, 1);
    return out;
}

bool Tokenizer::is_end_token(int32_t id) const {
    return std::find(description_.eos_ids.begin(), description_.eos_ids.end(), id) != description_.eos_ids.end();
}

}  // namespace edge
