// Artifacts that are damaged at random, in their structure: each is refused with an error, or loads and runs. Any number that a
// header can hold is tried in any of its places, and any byte in the tables and weights. EDGE_FUZZ_SECONDS runs it for longer;
// under the address and undefined-behaviour sanitizers it finds what tests by hand do not think of.
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "edge.h"
#include "engine_check.h"
#include "small_artifact.h"

namespace {

using Json = nlohmann::json;

struct Counts {
    int n_tried = 0, n_loaded = 0;
};

class Damage {
public:
    explicit Damage(uint32_t seed) : random_(seed) {}

    // A file made from a good one by a few changes.
    std::string apply(const std::string& good) {
        const size_t header_bytes = length_of(good);
        std::string header = good.substr(8, header_bytes), data = good.substr(8 + header_bytes);
        const uint32_t kind = below(10);
        if (kind < 6) header = change_fields(header);
        if (kind == 6) flip(header, 1 + below(4));
        if (kind >= 7) flip(data, 1 + below(64));
        if (kind == 9) data.resize(below(static_cast<uint32_t>(data.size())));
        return with_header(header) + data;
    }

    uint32_t below(uint32_t n) { return n == 0 ? 0 : random_() % n; }

private:
    static size_t length_of(const std::string& file) {
        size_t length = 0;
        for (size_t i = 0; i < 8; ++i) length |= static_cast<size_t>(static_cast<unsigned char>(file[i])) << (8 * i);
        return length;
    }

    static std::string with_header(std::string header) {
        while ((header.size() + 8) % 4096 != 0) header += ' ';
        std::string length(8, '\0');
        for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i));
        return length + header;
    }

    void flip(std::string& bytes, uint32_t n) {
        for (uint32_t i = 0; i < n && !bytes.empty(); ++i) {
            bytes[below(static_cast<uint32_t>(bytes.size()))] ^= static_cast<char>(1 << below(8));
        }
    }

    std::string change_fields(const std::string& header) {
        Json outer = Json::parse(header);
        Json edge = Json::parse(outer["__metadata__"]["edge"].get<std::string>());
        for (uint32_t i = 0, n = 1 + below(3); i < n; ++i) change(below(4) == 0 ? outer : edge, 0);
        if (outer.is_object() && outer.contains("__metadata__") && outer["__metadata__"].is_object()) {
            outer["__metadata__"]["edge"] = edge.dump(-1, ' ', false, Json::error_handler_t::replace);
        }
        std::string text = outer.dump(-1, ' ', false, Json::error_handler_t::replace);
        return text;
    }

    // Walks down to some place and puts something else there.
    void change(Json& place, int depth) {
        if (place.is_structured() && !place.empty() && (depth < 1 || below(8) != 0)) {
            auto child = place.begin();
            std::advance(child, below(static_cast<uint32_t>(place.size())));
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

    Json other(const Json& value) {
        static const int64_t kNumbers[] = {0, 1, -1, 2, 7, 8, 16, 63, 64, 255, 4096, 65536, 1 << 24, INT32_MAX, INT64_MAX, INT64_MIN};
        constexpr uint32_t kCount = sizeof kNumbers / sizeof *kNumbers;
        if (value.is_number_integer() && below(2) == 0) return value.get<int64_t>() + static_cast<int64_t>(below(33)) - 16;
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

    std::mt19937 random_;
};

// Whatever loaded must run, at every level that it says it has.
void use(edge_model* model) {
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

Counts fuzz(const std::string& good, const std::string& path, int n_least, double seconds) {
    Counts counts;
    const auto begin = std::chrono::steady_clock::now();
    for (uint32_t seed = 1; seed <= static_cast<uint32_t>(n_least) ||
                            std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < seconds;
         ++seed) {
        std::ofstream(path, std::ios::binary | std::ios::trunc) << Damage(seed).apply(good);
        edge_load_options options{};
        options.struct_size = sizeof options;
        options.choose = 2;
        options.budget_bytes = 64 << 20;
        options.context_tokens = 64;
        options.n_threads = 1;
        options.verify = EDGE_VERIFY_OFF;  // hashes would refuse what is to be tried
        edge_model* model = nullptr;
        const edge_status status = edge_model_load(path.c_str(), &options, &model);
        ++counts.n_tried;
        check((status == EDGE_OK) == (model != nullptr), "seed " + std::to_string(seed) + ": a status that says what happened");
        check(status != EDGE_INTERNAL, "seed " + std::to_string(seed) + ": " + edge_last_error());
        if (!model) continue;
        ++counts.n_loaded;
        use(model);
        edge_model_close(model);
    }
    return counts;
}

}  // namespace

int main() {
    const std::string good = edge_test::small_artifact(), path = edge_test::write_temporary(good);
    const char* seconds = std::getenv("EDGE_FUZZ_SECONDS");
    const Counts counts = fuzz(good, path, 600, seconds ? std::atof(seconds) : 0);
    std::printf("%d damaged files: %d loaded and ran, %d were refused\n", counts.n_tried, counts.n_loaded,
                counts.n_tried - counts.n_loaded);
    check(counts.n_loaded > counts.n_tried / 20 && counts.n_loaded < counts.n_tried * 19 / 20, "both happen");
    unlink(path.c_str());
    return finish();
}
