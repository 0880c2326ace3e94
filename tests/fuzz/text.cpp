#include <algorithm>
#include <memory>

#include "edge.h"
#include "small_artifact.h"
#include "targets.h"
#include "text_filter.h"
#include "tokenizer_unicode.h"

namespace edge_fuzz {
namespace {

// What a filter must show of `text`, pushed piece by piece, by searching all of it again each time.
struct Expected {
    std::string shown;
    bool stopped = false;
};
Expected searched(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
    std::string text;
    for (const std::string& piece : pieces) {
        text += piece;
        size_t at = std::string::npos;
        for (const std::string& stop : stops) {
            if (!stop.empty()) at = std::min(at, text.find(stop));
        }
        if (at != std::string::npos) return {text.substr(0, at), true};
    }
    return {text, false};
}

void check_filter(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
    edge::TextFilter filter(stops);
    const Expected expected = searched(stops, pieces);
    std::string shown;
    bool stopped = false;
    for (size_t i = 0; i < pieces.size() && !stopped; ++i) {
        stopped = filter.push(pieces[i], shown);
        require(expected.shown.compare(0, shown.size(), shown) == 0, "nothing of a stop string is shown");
    }
    if (!stopped) filter.finish(shown);
    require(stopped == expected.stopped && shown == expected.shown, "all before the stop string is shown");
}

edge_model* small_model() {
    edge_load_options options{};
    options.struct_size = sizeof options;
    options.choose = 3;
    options.context_tokens = 64;
    options.n_threads = 1;
    edge_model* model = nullptr;
    const std::string path = edge_test::write_temporary(edge_test::small_artifact());
    require(edge_model_load(path.c_str(), &options, &model) == EDGE_OK, edge_last_error());
    std::remove(path.c_str());
    return model;
}

// The same through the C ABI, which adds the way from tokens (of one byte each) to whole characters.
void check_stream(const std::vector<std::string>& stops, std::string_view answer) {
    static const std::unique_ptr<edge_model, decltype(&edge_model_close)> model(small_model(), edge_model_close);
    std::vector<const char*> strings;
    for (const std::string& stop : stops) strings.push_back(stop.c_str());
    edge_text* text = nullptr;
    if (edge_text_open(model.get(), strings.data(), strings.size(), &text) != EDGE_OK) return;
    edge_text_piece piece{};
    piece.struct_size = sizeof piece;
    std::string shown;
    for (const char byte : answer) {
        require(edge_text_push(text, static_cast<uint8_t>(byte), &piece) == EDGE_OK, edge_last_error());
        shown.append(piece.utf8, piece.n_bytes);
        if (piece.stopped) break;
    }
    if (!piece.stopped) {
        require(edge_text_finish(text, &piece) == EDGE_OK, edge_last_error());
        shown.append(piece.utf8, piece.n_bytes);
    }
    require(edge::is_valid_utf8(shown), "whole characters are shown");
    const std::string whole = edge::repair_utf8(answer);
    require(whole.compare(0, shown.size(), shown) == 0, "what is shown begins the answer");
    require(piece.stopped || shown == whole, "without a stop string all is shown");
    edge_text_close(text);
}

// An input: how many stop strings, each with its length before it; the length of pieces; the answer.
void run(std::string_view bytes) {
    Input input(bytes);
    std::vector<std::string> stops, valid, pieces;
    for (int i = input.number<uint8_t>() % 8; i > 0; --i) {
        stops.emplace_back(input.text(input.number<uint8_t>() % 32));
        valid.push_back(edge::repair_utf8(stops.back().substr(0, stops.back().find('\0'))));
    }
    const size_t length = 1 + input.number<uint8_t>() % 16;
    const std::string_view answer = input.rest();
    for (size_t at = 0; at < answer.size(); at += length) pieces.emplace_back(answer.substr(at, length));
    check_filter(stops, pieces);
    check_stream(valid, answer);
}

std::vector<std::string> seeds() {
    return {"\2\3end\2\n\n\1one\n\ntwo the end of it",
            std::string("\3\2ab\3abc\1b\0aababcab", 18),
            "\1\4\xF0\x9F\x99\x82\2smile \xF0\x9F\x99\x82\xF0\x9F\x99",
            std::string("\0\5no stops \xff\xe2\x96", 14),
            ""};
}

}  // namespace

const Target kText = {"text", run, seeds, nullptr};

}  // namespace edge_fuzz
