// Runs the engine's tokenizer over records, for tests/cloud/test_tokenizer.py.
//
//   tokenize_lines FOLDER encode|encode-special|decode|decode-special|stream|measure < records > records
//
// FOLDER holds header.json (the field `tokenizer`) and the tables bytes, offsets, kinds, sorted, merges (.bin). A record is
// a u32 count followed by that many bytes of text, or by that many u32 ids. `measure` prints MB/s instead.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "../../device/engine/tokenizer_description.h"
#include "../../device/engine/tokenizer_stream.h"

namespace {

using edge::Tokenizer;

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw edge::Error(EDGE_NOT_FOUND, path + " cannot be opened");
    return std::string(std::istreambuf_iterator<char>(file), {});
}

template <typename T>
std::vector<T> read_table(const std::string& folder, const char* name) {
    const std::string bytes = read_file(folder + "/" + name + ".bin");
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
}

template <typename T>
bool read_record(std::vector<T>& values) {
    uint32_t n = 0;
    if (std::fread(&n, sizeof n, 1, stdin) != 1) return false;
    values.resize(n);
    return std::fread(values.data(), sizeof(T), n, stdin) == n;
}

template <typename T>
void write_record(const T& values) {
    const uint32_t n = static_cast<uint32_t>(values.size());
    std::fwrite(&n, sizeof n, 1, stdout);
    std::fwrite(values.data(), sizeof(values[0]), n, stdout);
}

void encode_records(const Tokenizer& tokenizer, bool special) {
    for (std::vector<char> text; read_record(text);) {
        write_record(tokenizer.encode({text.data(), text.size()}, special, special));
    }
}

void decode_records(const Tokenizer& tokenizer, bool special) {
    for (std::vector<int32_t> ids; read_record(ids);) write_record(tokenizer.decode(ids, special));
}

void stream_records(const Tokenizer& tokenizer) {
    for (std::vector<int32_t> ids; read_record(ids);) {
        edge::StreamDecoder decoder(tokenizer, true, true);
        std::string text;
        for (const int32_t id : ids) decoder.push(id, text);
        decoder.finish(text);
        write_record(text);
    }
}

void measure(const Tokenizer& tokenizer) {
    size_t n_bytes = 0, n_tokens = 0;
    std::chrono::duration<double> elapsed{};
    for (std::vector<char> text; read_record(text);) {
        const auto begin = std::chrono::steady_clock::now();
        n_tokens += tokenizer.encode({text.data(), text.size()}, true, false).size();
        elapsed += std::chrono::steady_clock::now() - begin;
        n_bytes += text.size();
    }
    std::printf("%.2f MB/s, %zu bytes, %zu tokens\n", static_cast<double>(n_bytes) / 1e6 / elapsed.count(), n_bytes, n_tokens);
}

int run(const std::string& folder, const std::string& mode) {
    const auto bytes = read_table<uint8_t>(folder, "bytes");
    const auto offsets = read_table<uint32_t>(folder, "offsets");
    const auto kinds = read_table<uint8_t>(folder, "kinds");
    const auto sorted = read_table<uint32_t>(folder, "sorted");
    const auto merges = read_table<edge::Merge>(folder, "merges");
    const auto header = nlohmann::json::parse(read_file(folder + "/header.json"));
    const Tokenizer tokenizer({bytes, offsets, kinds, sorted, merges}, edge::parse_tokenizer(header));
    if (mode == "encode" || mode == "encode-special") {
        encode_records(tokenizer, mode == "encode-special");
    } else if (mode == "decode" || mode == "decode-special") {
        decode_records(tokenizer, mode == "decode-special");
    } else if (mode == "stream") {
        stream_records(tokenizer);
    } else if (mode == "measure") {
        measure(tokenizer);
    } else {
        throw edge::ArgumentError("unknown mode " + mode);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fputs("usage: tokenize_lines FOLDER MODE\n", stderr);
        return 2;
    }
    try {
        return run(argv[1], argv[2]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
}
