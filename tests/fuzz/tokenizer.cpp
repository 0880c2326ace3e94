// Two kinds of inputs. Raw: a description in JSON and the tables as they lie in a file, nearly all of which are refused. Built:
// kinds and texts of tokens and ids of merges, put in the order that the rules want, so that anything reaches the encoder.
#include "tokenizer.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

#include "damage.h"
#include "json_document.h"
#include "targets.h"
#include "tokenizer_description.h"
#include "tokenizer_stream.h"
#include "tokenizer_unicode.h"

namespace edge_fuzz {
namespace {

using edge::Merge;

struct Tables {
    std::vector<uint8_t> bytes, kinds;
    std::vector<uint32_t> offsets, sorted;
    std::vector<Merge> merges;

    edge::TokenizerTables views() const { return {bytes, offsets, kinds, sorted, merges}; }
};

constexpr uint8_t kRaw = 1, kChanged = 2;  // bits of an input's first byte; kChanged: tables change after they were checked

template <typename T>
std::vector<T> table(Input& input) {
    const std::string_view bytes = input.text(input.number<uint16_t>());
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
}

std::pair<Tables, edge::TokenizerDescription> raw(Input& input) {
    const std::string json(input.text(input.number<uint16_t>()));
    Tables tables;
    tables.bytes = table<uint8_t>(input);
    tables.offsets = table<uint32_t>(input);
    tables.kinds = table<uint8_t>(input);
    tables.sorted = table<uint32_t>(input);
    tables.merges = table<Merge>(input);
    return {std::move(tables), edge::parse_tokenizer(edge::parse_json(json, "7", "the description").root())};
}

edge::TokenizerDescription describe(Input& input, uint32_t n_tokens) {
    edge::TokenizerDescription d;
    const uint16_t flags = input.number<uint16_t>();
    d.model = flags & 1 ? edge::TokenizerModel::sentencepiece_bpe : edge::TokenizerModel::byte_bpe;
    d.nfc = flags & 2, d.strip_leading_space = flags & 4, d.byte_fallback = flags & 8;
    d.fuse_unk = flags & 16, d.ignore_merges = flags & 32, d.add_bos = flags & 64;
    d.space_prefix = static_cast<edge::SpacePrefix>(flags >> 7 & 3);
    const uint32_t n_steps = flags >> 9 & 3;
    for (uint32_t i = 0; i < n_steps; ++i) d.pre_tokenizer.push_back(static_cast<edge::SplitStep>(input.number<uint8_t>() % 6));
    d.bos_id = static_cast<int32_t>(input.number<uint8_t>() % n_tokens);
    d.unk_id = static_cast<int32_t>(input.number<uint8_t>() % (n_tokens + 1)) - 1;
    d.eos_ids = {static_cast<int32_t>(n_tokens - 1)};
    d.n_tokens = n_tokens;
    return d;
}

std::pair<Tables, edge::TokenizerDescription> built(Input& input) {
    std::vector<std::string> texts;
    Tables tables;
    const uint8_t n_own = input.number<uint8_t>();
    const bool all_bytes = n_own & 128;
    for (int byte = 0; all_bytes && byte < 256; ++byte) {
        texts.emplace_back(1, static_cast<char>(byte));
        tables.kinds.push_back(edge::kByte);
    }
    for (int i = 0; i <= (n_own & 127); ++i) {
        tables.kinds.push_back(input.number<uint8_t>());
        texts.emplace_back(input.text(input.number<uint8_t>() % 16));
    }
    const auto n_tokens = static_cast<uint32_t>(texts.size());
    tables.offsets.push_back(0);
    for (const std::string& text : texts) {
        tables.bytes.insert(tables.bytes.end(), text.begin(), text.end());
        tables.offsets.push_back(static_cast<uint32_t>(tables.bytes.size()));
    }
    tables.sorted.resize(n_tokens);
    std::iota(tables.sorted.begin(), tables.sorted.end(), 0u);
    std::stable_sort(tables.sorted.begin(), tables.sorted.end(), [&](uint32_t a, uint32_t b) { return texts[a] < texts[b]; });
    std::map<std::pair<uint32_t, uint32_t>, Merge> merges;
    for (int i = input.number<uint8_t>(); i > 0; --i) {
        const uint32_t left = input.number<uint16_t>() % n_tokens, right = input.number<uint16_t>() % n_tokens;
        merges[{left, right}] = {left, right, input.number<uint8_t>(), input.number<uint16_t>() % n_tokens};
    }
    for (const auto& [pair, merge] : merges) tables.merges.push_back(merge);
    edge::TokenizerDescription description = describe(input, n_tokens);
    description.n_merges = static_cast<uint32_t>(tables.merges.size());
    return {std::move(tables), std::move(description)};
}

// Encodes in every way, and decodes at once and token by token.
void use(const edge::Tokenizer& tokenizer, std::string_view text, bool sound) {
    const auto n_tokens = static_cast<int32_t>(tokenizer.description().n_tokens);
    for (int way = 0; way < 4; ++way) {
        const bool special = way & 1;
        const std::vector<int32_t> ids = tokenizer.encode(text, special, way & 2);
        std::string streamed;
        edge::StreamDecoder decoder(tokenizer, special, true);
        for (const int32_t id : ids) {
            require(!sound || (id >= 0 && id < n_tokens), "ids are tokens");
            decoder.push(id, streamed);
        }
        decoder.finish(streamed);
        if (sound) require(streamed == edge::repair_utf8(tokenizer.decode(ids, special)), "a stream decodes to the whole text");
    }
    std::vector<int32_t> any{-1, n_tokens, INT32_MIN, INT32_MAX};
    for (const char c : text) any.push_back(static_cast<uint8_t>(c));
    tokenizer.decode(any, true);
}

void run(std::string_view bytes) {
    Input input(bytes);
    const uint8_t mode = input.number<uint8_t>();
    try {
        auto [tables, description] = mode & kRaw ? raw(input) : built(input);
        const edge::Tokenizer tokenizer(tables.views(), std::move(description));
        const std::string_view text = input.rest();
        use(tokenizer, text, true);
        if (!(mode & kChanged)) return;
        // Somebody writes to the mapped file: other tokens may come out, but nothing outside of the tables is read.
        for (size_t i = 0; i < text.size(); ++i) {
            const auto value = static_cast<uint8_t>(text[i]);
            if (!tables.kinds.empty()) tables.kinds[value * i % tables.kinds.size()] ^= value;
            if (!tables.sorted.empty()) tables.sorted[value * i % tables.sorted.size()] ^= uint32_t{value} << value % 25;
            tables.offsets[value * i % tables.offsets.size()] ^= uint32_t{value} << value % 25;
            if (!tables.merges.empty()) tables.merges[value * i % tables.merges.size()].merged ^= uint32_t{value} << value % 25;
        }
        use(tokenizer, text, false);
    } catch (const edge::Error& error) {
        require(error.status == EDGE_BAD_ARTIFACT || error.status == EDGE_UNSUPPORTED, "an error that blames the file");
    }
}

void add(std::string& out, const std::string& bytes) {
    out.push_back(static_cast<char>(bytes.size()));
    out.push_back(static_cast<char>(bytes.size() >> 8));
    out += bytes;
}

using Tokens = std::vector<std::pair<std::string, uint8_t>>;  // bytes and kind of each

std::string raw_seed(const std::string& json, const Tokens& tokens, const std::string& text) {
    std::string bytes, offsets(4, '\0'), kinds, sorted, out(1, static_cast<char>(kRaw | kChanged));
    std::vector<uint8_t> order(tokens.size());
    std::iota(order.begin(), order.end(), uint8_t{0});
    std::stable_sort(order.begin(), order.end(), [&](uint8_t a, uint8_t b) { return tokens[a].first < tokens[b].first; });
    for (const auto& [token, kind] : tokens) {
        bytes += token, kinds.push_back(static_cast<char>(kind));
        offsets += {static_cast<char>(bytes.size()), '\0', '\0', '\0'};
    }
    for (const uint8_t id : order) sorted += {static_cast<char>(id), '\0', '\0', '\0'};
    const std::string merge = {0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0};  // the first two tokens become the third
    for (const std::string& part : {json, bytes, offsets, kinds, sorted, merge}) add(out, part);
    return out + text;
}

// `flags` as describe() reads them; merges of the first two tokens, and of the third with the first.
std::string built_seed(uint16_t flags, bool all_bytes, const Tokens& tokens, const std::string& steps, const std::string& text) {
    std::string out(1, static_cast<char>(kChanged));
    out.push_back(static_cast<char>((tokens.size() - 1) | (all_bytes ? 128 : 0)));
    for (const auto& [token, kind] : tokens) out += std::string{static_cast<char>(kind), static_cast<char>(token.size())} + token;
    out += std::string{2, 0, 0, 1, 0, 0, 2, 0, 2, 0, 0, 0, 1, 2, 0};
    out += std::string{static_cast<char>(flags), static_cast<char>(flags >> 8)} + steps + std::string{1, 0};
    return out + text;
}

std::vector<std::string> seeds() {
    using edge::kNormal, edge::kSpecial, edge::kUserDefined, edge::kUnused;
    const std::string text = "ab  a\xC3\xA9 <s> 12345 it's\r\n\xE2\x96\x81""aba\xF0\x9F\x99\x82\xff";
    const Tokens tokens = {
        {"a", kNormal}, {"b", kNormal}, {"ab", kNormal}, {" ", kNormal},
        {"<s>", int{kSpecial} | int{edge::kTakesSpaceBefore} | int{edge::kTakesSpaceAfter}},
        {"it's", int{kUserDefined} | int{edge::kNormalized}},
        {"\xE2\x96\x81", kNormal}, {"", kUnused}};
    const std::string json = R"({"model":"byte_bpe","n_tokens":8,"n_merges":1,"pre_tokenizer":["digits","gpt2"],"bos_id":4,)"
                             R"("unk_id":0,"eos_ids":[4],"normalizer":"nfc","ignore_merges":true,"add_bos":true})";
    std::vector<std::string> all = {raw_seed(json, tokens, text)};
    for (uint16_t step = 0; step < 5; ++step) {
        all.push_back(built_seed(2 | 64 | 1 << 9, false, tokens, std::string(1, static_cast<char>(step)), text));
    }
    for (uint16_t prefix = 0; prefix < 4; ++prefix) {
        all.push_back(built_seed(static_cast<uint16_t>(1 | 4 | 8 | 16 | prefix << 7 | 1 << 9), true, tokens, "\5", text));
        all.push_back(built_seed(static_cast<uint16_t>(1 | 32 | prefix << 7), false, tokens, "", text));
    }
    return all;
}

// Of a raw input the description, as JSON; the rest is bytes.
std::string mutate(const std::string& bytes, uint32_t seed) {
    Input input(bytes);
    const auto mode = input.number<uint8_t>();
    if (!(mode & kRaw)) return bytes;
    std::string out(1, static_cast<char>(mode));
    const std::string json(input.text(input.number<uint16_t>()));
    add(out, edge_test::Damage(seed).apply_to_json(json).substr(0, UINT16_MAX));
    return out.append(input.rest());
}

}  // namespace

const Target kTokenizer = {"tokenizer", run, seeds, mutate};

}  // namespace edge_fuzz
