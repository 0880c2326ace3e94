#include "damage.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <optional>
#include <vector>

#include "errors.h"
#include "json_document.h"

namespace edge_test {
namespace {

using Json = nlohmann::json;

constexpr size_t kNoHeader = std::string::npos;

size_t header_length(const std::string& file) {
    if (file.size() < 8) return kNoHeader;
    uint64_t length = 0;
    for (size_t i = 0; i < 8; ++i) length |= uint64_t{static_cast<unsigned char>(file[i])} << (8 * i);
    return length <= file.size() - 8 ? static_cast<size_t>(length) : kNoHeader;
}

std::string with_length(std::string header) {
    while ((header.size() + 8) % 4096 != 0) header += ' ';
    std::string length(8, '\0');
    for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i));
    return length + header;
}

// By the engine's own parser: what it refuses (for its depth, say) would be too much for the other functions of the library.
std::optional<Json> parsed(const std::string& text) {
    try {
        return edge::parse_json(text, "1.1", "a text").root();
    } catch (const edge::Error&) {
        return std::nullopt;
    }
}

std::string written(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

// A status that does not say what happened, or one that blames the engine.
void require(bool held, const char* what) {
    if (held) return;
    std::fprintf(stderr, "failed: %s: %s\n", what, edge_last_error());
    std::abort();
}

void run(edge_model* model) {
    edge_session* session = nullptr;
    if (edge_session_open(model, &session) != EDGE_OK) return;
    const int32_t n_tokens = 9, vocab_size = edge_model_vocab_size(model);
    std::vector<int32_t> tokens(static_cast<size_t>(n_tokens));
    for (int32_t level = -1; level < 3; ++level) {
        if (level >= 0 && edge_model_set_level(model, level, level % 2) != EDGE_OK) continue;
        for (int32_t i = 0; i < n_tokens; ++i) tokens[static_cast<size_t>(i)] = (i * 37 + level) % vocab_size;
        if (tokens[0] < 0) tokens[0] = 0;
        int32_t n = 0;
        edge_session_feed(session, tokens.data(), tokens.size(), 0, nullptr);
        edge_session_generate(session, nullptr, 0, 4, nullptr, 0, nullptr, nullptr, &n);
    }
    char text[256];
    size_t n_bytes = 0, n_found = 0;
    edge_detokenize(model, tokens.data(), tokens.size(), 1, text, sizeof text, &n_bytes);
    edge_tokenize(model, "one <bos> two\n\xff", 15, 1, 1, nullptr, 0, &n_found);
    edge_session_close(session);
}

}  // namespace

std::string Damage::apply(const std::string& file) {
    const size_t header_bytes = header_length(file);
    if (header_bytes == kNoHeader) {
        std::string damaged = file;
        flip(damaged, 1 + below(4));
        return damaged;
    }
    std::string header = file.substr(8, header_bytes), data = file.substr(8 + header_bytes);
    const uint32_t kind = below(12);
    if (kind < 6) change_header(header);
    if (kind == 6) flip(header, 1 + below(4));
    if (kind >= 7 && kind < 10) flip(data, 1 + below(64));
    if (kind == 9) data.resize(below(data.size()));
    if (kind >= 10) change_tensor(header, data);
    return with_length(std::move(header)) + data;
}

std::string Damage::apply_to_json(const std::string& text) {
    std::optional<Json> value = parsed(text);
    if (!value || below(8) == 0) {
        std::string damaged = text;
        flip(damaged, 1 + below(4));
        return damaged;
    }
    for (uint32_t i = 0, n = 1 + below(3); i < n; ++i) change(*value, 0);
    return written(*value);
}

void Damage::flip(std::string& bytes, uint32_t n) {
    for (uint32_t i = 0; i < n && !bytes.empty(); ++i) {
        bytes[below(bytes.size())] ^= static_cast<char>(1 << below(8));
    }
}

void Damage::change_header(std::string& header) {
    std::optional<Json> outer = parsed(header);
    if (!outer) return flip(header, 1 + below(4));
    const auto metadata = outer->find("__metadata__");
    Json* text = metadata != outer->end() && metadata->is_object() && metadata->contains("edge") ? &(*metadata)["edge"] : nullptr;
    std::optional<Json> edge = text && text->is_string() ? parsed(text->get_ref<const std::string&>()) : std::nullopt;
    if (edge) {
        for (uint32_t i = 0, n = 1 + below(3); i < n; ++i) {
            if (below(4) != 0) change(*edge, 0);
        }
        *text = written(*edge);
    }
    if (!edge || below(4) == 0) change(*outer, 0);
    header = written(*outer);
}

// Any tensor with the same chance: the tables of the tokenizer are small.
void Damage::change_tensor(const std::string& header, std::string& data) {
    const std::optional<Json> outer = parsed(header);
    if (!outer || outer->empty()) return flip(data, 1);
    const auto entry = std::next(outer->begin(), below(outer->size()));
    const Json* offsets = entry->is_object() && entry->contains("data_offsets") ? &(*entry)["data_offsets"] : nullptr;
    if (!offsets || !offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned()) return flip(data, 1);
    const uint64_t begin = (*offsets)[0], end = (*offsets)[1].is_number_unsigned() ? (*offsets)[1].get<uint64_t>() : 0;
    if (begin >= end || end > data.size()) return flip(data, 1);
    std::string bytes = data.substr(begin, end - begin);
    if (below(2) == 0) {
        flip(bytes, 1 + below(8));
    } else {
        const char fill[] = {'\0', '\1', '\x7f', '\x80', '\xff'};
        const size_t at = below(bytes.size()) / 4 * 4, n = std::min<size_t>(4, bytes.size() - at);
        bytes.replace(at, n, n, fill[below(sizeof fill)]);
    }
    data.replace(begin, bytes.size(), bytes);
}

// Walks down to some place and puts something else there.
void Damage::change(Json& place, int depth) {
    if (place.is_structured() && !place.empty() && (depth < 1 || below(8) != 0)) {
        auto child = place.begin();
        std::advance(child, below(place.size()));
        if (below(24) == 0) {
            place.erase(child);
        } else if (below(32) == 0 && place.is_array()) {
            place.push_back(Json(*child));
        } else {
            change(*child, depth + 1);
        }
        return;
    }
    place = other(place);
}

Json Damage::other(const Json& value) {
    static const int64_t kNumbers[] = {0, 1, -1, 2, 7, 8, 16, 63, 64, 255, 4096, 65536, 1 << 24, INT32_MAX, INT64_MAX, INT64_MIN};
    constexpr uint32_t kCount = sizeof kNumbers / sizeof *kNumbers;
    if (value.is_number_integer() && below(2) == 0) {
        return static_cast<int64_t>(value.get<uint64_t>() + below(33) - 16);  // unsigned: what overflows wraps
    }
    switch (below(8)) {
        case 0: return nullptr;
        case 1: return below(2) == 0;
        case 2: return std::string(below(300), 'x');
        case 3: return Json::array();
        case 4: return Json::object();
        case 5: return std::numeric_limits<double>::max();
        default: return kNumbers[below(kCount)];
    }
}

edge_status load_and_run(const std::string& path) {
    edge_load_options options{};
    options.struct_size = sizeof options;
    options.choose = 2;
    options.budget_bytes = 64 << 20;
    options.context_tokens = 64;
    options.n_threads = 1;
    options.verify = EDGE_VERIFY_OFF;
    edge_model* model = nullptr;
    const edge_status status = edge_model_load(path.c_str(), &options, &model);
    require((status == EDGE_OK) == (model != nullptr), "a status that says what happened");
    require(status != EDGE_INTERNAL, "no file is the engine's own fault");
    if (model) run(model);
    edge_model_close(model);
    return status;
}

}  // namespace edge_test
