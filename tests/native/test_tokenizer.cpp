// The tokenizer on tables small enough to check by hand, and on tables that break a rule of SPEC.md section 7.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "tokenizer.h"
#include "tokenizer_description.h"
#include "tokenizer_stream.h"
#include "tokenizer_unicode.h"

using namespace edge;

namespace {

int n_failures = 0;

void check(bool held, const std::string& what) {
    if (held) return;
    ++n_failures;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
}

// Owns what a file would hold.
struct Tables {
    std::vector<std::string> tokens;
    std::vector<uint8_t> bytes, kinds;
    std::vector<uint32_t> offsets{0}, sorted;
    std::vector<Merge> merges;
    TokenizerDescription description;

    uint32_t add(const std::string& text, int kind) {
        tokens.push_back(text);
        bytes.insert(bytes.end(), text.begin(), text.end());
        offsets.push_back(static_cast<uint32_t>(bytes.size()));
        kinds.push_back(static_cast<uint8_t>(kind));
        return static_cast<uint32_t>(kinds.size() - 1);
    }
    void finish() {
        sorted.resize(tokens.size());
        std::iota(sorted.begin(), sorted.end(), 0u);
        std::stable_sort(sorted.begin(), sorted.end(), [&](uint32_t a, uint32_t b) { return tokens[a] < tokens[b]; });
        description.n_tokens = static_cast<uint32_t>(tokens.size());
        description.n_merges = static_cast<uint32_t>(merges.size());
    }
    Tokenizer open() const { return Tokenizer({bytes, offsets, kinds, sorted, merges}, description); }
};

// Ids 0-255 are the bytes, 256 "ab", 257 "bc", 258 "abc", 259 <s>, 260 <pad>.
Tables byte_tables() {
    Tables t;
    for (int byte = 0; byte < 256; ++byte) t.add(std::string(1, static_cast<char>(byte)), kNormal);
    t.add("ab", kNormal);
    t.add("bc", kNormal);
    t.add("abc", kNormal);
    t.add("<s>", kSpecial);
    t.add("<pad>", int{kUserDefined} | int{kTakesSpaceBefore});
    t.merges = {{'a', 'b', 1, 256}, {'b', 'c', 0, 257}, {256, 'c', 2, 258}};
    t.description.pre_tokenizer = {SplitStep::gpt2};
    t.description.bos_id = 259;
    t.description.add_bos = true;
    t.description.eos_ids = {260};
    t.finish();
    return t;
}

void test_merges_and_added_tokens() {
    const Tables tables = byte_tables();
    const Tokenizer tokenizer = tables.open();
    using Ids = std::vector<int32_t>;
    check(tokenizer.encode("abc", true, false) == Ids{'a', 257}, "the lowest rank is merged first");
    check(tokenizer.encode("abab", true, true) == Ids{259, 256, 256}, "bos comes first");
    check(tokenizer.encode("a<s>b", true, false) == Ids{'a', 259, 'b'}, "a special token is found");
    check(tokenizer.encode("<s>", false, false) == Ids{'<', 's', '>'}, "text does not name special tokens");
    check(tokenizer.encode("a  <pad>b", false, false) == Ids{'a', 260, 'b'}, "<pad> takes the space before it");
    check(tokenizer.encode("", true, false).empty(), "no text, no tokens");
    check(tokenizer.encode("\xFF", true, false) == Ids{0xEF, 0xBF, 0xBD}, "an invalid byte is read as U+FFFD");
    check(tokenizer.decode(Ids{259, 258, 5000, -1, 'x'}, false) == "abcx", "special and unknown ids stand for nothing");
    check(tokenizer.is_end_token(260) && !tokenizer.is_end_token(259), "end tokens");
    Tables whole = byte_tables();
    whole.description.ignore_merges = true;
    check(whole.open().encode("abc", true, false) == Ids{258}, "ignore_merges takes the whole piece");
}

void test_sentencepiece() {
    Tables t;
    t.description.model = TokenizerModel::sentencepiece_bpe;
    t.description.space_prefix = SpacePrefix::piece;
    t.description.strip_leading_space = t.description.byte_fallback = true;
    for (int byte = 0; byte < 256; ++byte) t.add(std::string(1, static_cast<char>(byte)), kByte);
    const uint32_t mark = t.add("\xE2\x96\x81", kNormal), a = t.add("a", kNormal), joined = t.add("\xE2\x96\x81" "a", kNormal);
    t.merges = {{mark, a, 0, joined}};
    t.finish();
    const Tokenizer tokenizer = t.open();
    const auto ids = tokenizer.encode("a a\xC3\xA9", true, false);
    check(ids == std::vector<int32_t>{258, 258, 0xC3, 0xA9}, "spaces are marked, unknown characters fall back to bytes");
    check(tokenizer.decode(ids, false) == "a a\xC3\xA9", "the space that was put first is taken away");
}

void test_stream() {
    const Tables tables = byte_tables();
    const Tokenizer tokenizer = tables.open();
    StreamDecoder decoder(tokenizer, false, false);
    std::string out;
    for (const int32_t id : {0xF0, 0x9F, 0x99}) decoder.push(id, out);
    check(out.empty(), "a part of a character is held back");
    decoder.push(0x82, out);
    check(out == "\xF0\x9F\x99\x82", "a whole character comes out");
    decoder.push(0xE2, out);
    decoder.push('x', out);
    check(out == "\xF0\x9F\x99\x82\xEF\xBF\xBDx", "a cut character becomes U+FFFD");
    out.clear();
    decoder.push(0xC3, out);
    decoder.finish(out);
    check(out == "\xEF\xBF\xBD", "the end flushes");
}

void test_unicode() {
    check(repair_utf8("a\xF0\x80\x80\xED\xA0\x80\xE2\x82") == "a" + std::string("\xEF\xBF\xBD") + "\xEF\xBF\xBD\xEF\xBF\xBD" +
          "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" + "\xEF\xBF\xBD", "overlong forms, surrogates and a cut end");
    check(normalize_nfc("e\xCC\x81") == "\xC3\xA9", "e and acute compose");
    check(normalize_nfc("q\xCC\x87\xCC\xA3") == "q\xCC\xA3\xCC\x87", "marks are put in order");
    check(normalize_nfc("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB") == "\xED\x95\x9C", "Hangul composes");
    const auto pieces = [](SplitStep step, std::string_view text) {
        std::string out;
        while (!text.empty()) {
            const size_t n = first_piece(step, text);
            out.append(text.substr(0, n)).push_back('|');
            text.remove_prefix(n);
        }
        return out;
    };
    check(pieces(SplitStep::gpt2, "I'll go  12 x!\n") == "I|'ll| go| | 12| x|!|\n|", "gpt2");
    check(pieces(SplitStep::llama3, "I'LL go  1234!\n\n x") == "I|'LL| go| | |123|4|!\n\n| x|", "llama3");
    check(pieces(SplitStep::qwen2, "a12 \n\n  b") == "a|1|2| \n\n| | b|", "qwen2");
    check(pieces(SplitStep::digits, "a12b") == "a|1|2|b|", "digits");
    check(pieces(SplitStep::words, "\xE2\x96\x81" "a\xE2\x96\x81") == "\xE2\x96\x81" "a|\xE2\x96\x81|", "words");
}

void test_hostile_tables() {
    const std::vector<std::pair<const char*, std::function<void(Tables&)>>> cases = {
        {"too few offsets", [](Tables& t) { t.offsets.pop_back(); }},
        {"offsets that descend", [](Tables& t) { t.offsets[7] = 3; }},
        {"offsets that begin late", [](Tables& t) { t.offsets[0] = 1; }},
        {"offsets that end behind the bytes", [](Tables& t) { t.offsets.back() += 9; }},
        {"an order with an id twice", [](Tables& t) { t.sorted[3] = t.sorted[4]; }},
        {"an order with a wild id", [](Tables& t) { t.sorted[3] = 0xFFFFFFFF; }},
        {"an order that descends", [](Tables& t) { std::swap(t.sorted[3], t.sorted[4]); }},
        {"merges that descend", [](Tables& t) { std::swap(t.merges[0], t.merges[1]); }},
        {"a merge twice", [](Tables& t) { t.merges[1] = t.merges[0]; }},
        {"a merge of a wild id", [](Tables& t) { t.merges[2].left = 261; }},
        {"a merge into a wild id", [](Tables& t) { t.merges[2].merged = 0xFFFFFFFF; }},
        {"an unknown kind", [](Tables& t) { t.kinds[9] = 7; }},
        {"an unknown flag", [](Tables& t) { t.kinds[9] = 128; }},
        {"a long token of kind byte", [](Tables& t) { t.kinds[256] = kByte; }},
        {"an added token that is not UTF-8", [](Tables& t) { t.kinds[0x98] = kUserDefined; }},
        {"a wild bos", [](Tables& t) { t.description.bos_id = 261; }},
        {"a wild end token", [](Tables& t) { t.description.eos_ids = {-2}; }},
        {"add_bos without bos", [](Tables& t) { t.description.bos_id = -1; }},
    };
    for (const auto& [what, damage] : cases) {
        Tables tables = byte_tables();
        damage(tables);
        bool refused = false;
        try {
            tables.open();
        } catch (const ArtifactError& error) {
            refused = error.status == EDGE_BAD_ARTIFACT && error.message.find("section 7") != std::string::npos;
        }
        check(refused, std::string("refuses ") + what);
    }
}

void test_description() {
    const auto status_of = [](const char* text) {
        try {
            parse_tokenizer(nlohmann::json::parse(text));
        } catch (const Error& error) {
            return error.status;
        }
        return EDGE_OK;
    };
    const std::string rest = R"("n_tokens": 9, "n_merges": 0, "pre_tokenizer": ["gpt2"], "eos_ids": [1])";
    check(status_of(("{\"model\": \"byte_bpe\", " + rest + "}").c_str()) == EDGE_OK, "absent fields have defaults");
    check(status_of(("{\"model\": \"unigram\", " + rest + "}").c_str()) == EDGE_UNSUPPORTED, "an unknown model");
    check(status_of(("{\"model\": 3, " + rest + "}").c_str()) == EDGE_BAD_ARTIFACT, "a model that is a number");
    check(status_of(("{\"model\": \"byte_bpe\", \"bos_id\": -1, " + rest + "}").c_str()) == EDGE_BAD_ARTIFACT, "a negative id");
    check(status_of("[]") == EDGE_BAD_ARTIFACT, "a list instead of an object");
    check(status_of(R"({"model": "byte_bpe", "n_tokens": 1e30})") == EDGE_BAD_ARTIFACT, "a count that is no integer");
    check(status_of(R"({"model": "byte_bpe", "n_tokens": 18446744073709551615})") == EDGE_BAD_ARTIFACT, "a huge count");
}

}  // namespace

int main() {
    test_merges_and_added_tokens();
    test_sentencepiece();
    test_stream();
    test_unicode();
    test_hostile_tables();
    test_description();
    return n_failures == 0 ? 0 : 1;
}
