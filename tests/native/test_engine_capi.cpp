// The C ABI without a model: arguments, statuses, messages, and headers that must be refused before anything is built.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "edge.h"
#include "engine_check.h"

namespace {

std::string path;

void write_file(const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// An artifact's container: length, JSON padded to a page.
std::string container(const std::string& json, uint64_t header_bytes = 0) {
    std::string padded = json;
    while ((padded.size() + 8) % 4096 != 0) padded += ' ';
    if (header_bytes == 0) header_bytes = padded.size();
    std::string length;
    for (int i = 0; i < 8; ++i) length += static_cast<char>(header_bytes >> (8 * i));
    return length + padded;
}

edge_status load(const std::string& bytes) {
    write_file(bytes);
    edge_model* model = nullptr;
    const edge_status status = edge_model_load(path.c_str(), nullptr, &model);
    check(model == nullptr, "no model comes from a hostile file");
    return status;
}

void test_headers() {
    struct Case {
        std::string name, bytes, message;
        edge_status status;
    };
    const std::string nested = std::string(100000, '[') + std::string(100000, ']');
    std::string many = "{\"a\":[0";
    for (int i = 0; i < 4'100'000; ++i) many += ",0";
    const Case cases[] = {
        {"empty", "", "rule 1.1", EDGE_BAD_ARTIFACT},
        {"short", "1234567", "rule 1.1", EDGE_BAD_ARTIFACT},
        {"exabytes", container("{}", uint64_t{1} << 60), "rule 1.2", EDGE_BAD_ARTIFACT},
        {"all ones", std::string(4096, '\xff'), "rule 1.2", EDGE_BAD_ARTIFACT},
        {"64 MiB that are not there", container("{}", (64 << 20) - 8), "rule 1.1", EDGE_TRUNCATED},
        {"not JSON", container("hello"), "rule 1.1", EDGE_BAD_ARTIFACT},
        {"a list", container("[]"), "rule 1.1", EDGE_BAD_ARTIFACT},
        {"nested", container(nested), "nested deeper", EDGE_BAD_ARTIFACT},
        {"many values", container(many + "]}"), "4 million", EDGE_BAD_ARTIFACT},
        {"plain safetensors", container("{}"), "rule 1.6", EDGE_BAD_ARTIFACT},
        {"metadata of numbers", container(R"({"__metadata__":{"edge":7}})"), "rule 1.6", EDGE_BAD_ARTIFACT},
        {"version 2", container(R"({"__metadata__":{"edge":"{\"format_version\":\"2.0\"}"}})"), "rule 1.7", EDGE_UNSUPPORTED},
        {"version one", container(R"({"__metadata__":{"edge":"{\"format_version\":\"one\"}"}})"), "rule 1.7", EDGE_BAD_ARTIFACT},
        {"invalid UTF-8", container("{\"\xff\xfe\":1}"), "rule 1.1", EDGE_BAD_ARTIFACT},
    };
    for (const Case& c : cases) {
        const edge_status status = load(c.bytes);
        check(status == c.status, c.name + ": status " + std::to_string(status));
        check(contains(edge_last_error(), c.message), c.name + ": " + edge_last_error());
    }
}

void test_arguments() {
    edge_model* model = nullptr;
    check(edge_model_load(nullptr, nullptr, &model) == EDGE_BAD_ARGUMENT, "no path");
    check(edge_model_load("/nowhere/model.edge", nullptr, &model) == EDGE_NOT_FOUND, "no file");
    check(contains(edge_last_error(), "/nowhere/model.edge"), edge_last_error());
    check(edge_model_load("/", nullptr, &model) == EDGE_IO, "a folder");
    edge_load_options options{};
    check(edge_model_load(path.c_str(), &options, &model) == EDGE_BAD_ARGUMENT, "struct_size 0");
    check(contains(edge_last_error(), "struct_size"), edge_last_error());
    uint64_t bytes = 0;
    char why[8];
    std::memset(why, 'x', sizeof why);
    check(edge_memory_budget(&bytes, why, sizeof why) == EDGE_OK && why[7] == '\0', "the reason is cut to its buffer");
    check(edge_memory_budget(nullptr, nullptr, 0) == EDGE_BAD_ARGUMENT, "nowhere to write");
    check(edge_session_feed(nullptr, nullptr, 0, 0, nullptr) == EDGE_BAD_ARGUMENT, "no session");
    check(edge_session_logprobs(nullptr, 0, nullptr) == EDGE_BAD_ARGUMENT, "no session to score");
    edge_text* text = nullptr;
    check(edge_text_open(nullptr, nullptr, 0, &text) == EDGE_BAD_ARGUMENT && !text, "no model for a text");
    edge_text_piece piece{};
    check(edge_text_push(nullptr, 0, &piece) == EDGE_BAD_ARGUMENT, "no text to push to");
    check(edge_text_finish(nullptr, &piece) == EDGE_BAD_ARGUMENT, "no text to finish");
    edge_text_close(nullptr);
    edge_model_close(nullptr);
    edge_session_close(nullptr);
}

void test_errors_belong_to_threads() {
    edge_model* model = nullptr;
    edge_model_load("/nowhere/1", nullptr, &model);
    std::string other;
    std::thread([&] {
        edge_model_load("/nowhere/2", nullptr, &model);
        other = edge_last_error();
    }).join();
    check(contains(edge_last_error(), "/nowhere/1") && contains(other, "/nowhere/2"), "each thread has its own message");
}

}  // namespace

int main() {
    path = (std::filesystem::temp_directory_path() / "edge-capi-XXXXXX").string();
    const int file = mkstemp(path.data());
    check(file >= 0, "a temporary file");
    close(file);
    check(*edge_version() != '\0' && *edge_isa() != '\0', "version and isa");
    test_headers();
    test_arguments();
    test_errors_belong_to_threads();
    unlink(path.c_str());
    return finish();
}
