// The C ABI without a model: arguments, statuses, messages, and headers that must be refused before anything is built.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include "edge.h"
#include "engine_check.h"
#include "temporary.h"

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
        {"version 3", container(R"({"__metadata__":{"edge":"{\"format_version\":\"3.0\"}"}})"), "rule 1.7", EDGE_UNSUPPORTED},
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
    edge_op_time time{};
    check(edge_session_time_ops(nullptr, 1) == EDGE_BAD_ARGUMENT, "no session to time");
    check(edge_session_op_time(nullptr, 0, &time) == EDGE_BAD_ARGUMENT && edge_n_ops() > 0, "no session's times");
    edge_text* text = nullptr;
    check(edge_text_open(nullptr, nullptr, 0, &text) == EDGE_BAD_ARGUMENT && !text, "no model for a text");
    edge_text_piece piece{};
    check(edge_text_push(nullptr, 0, &piece) == EDGE_BAD_ARGUMENT, "no text to push to");
    check(edge_text_finish(nullptr, &piece) == EDGE_BAD_ARGUMENT, "no text to finish");
    edge_text_close(nullptr);
}

void test_null_handles() {
    edge_level_info info{sizeof(edge_level_info), 0, 0, 0, 0, 0, 0, 0};
    edge_memory memory{sizeof(edge_memory), 0, 0, 0, 0};
    edge_session* session = nullptr;
    int32_t token = 0;
    size_t n = 7;
    check(edge_model_n_levels(nullptr) == 0 && edge_model_level(nullptr) == -1, "no levels");
    check(contains(edge_last_error(), "`model` is NULL"), edge_last_error());
    check(*edge_model_level_reason(nullptr) == '\0' && edge_model_context_tokens(nullptr) == 0, "no reason, no context");
    check(edge_model_vocab_size(nullptr) == 0 && edge_model_n_threads(nullptr) == 0, "no vocabulary, no threads");
    check(edge_model_token_bytes(nullptr) == 0 && edge_is_end_token(nullptr, 0) == 0, "no weights, no end token");
    check(!edge_model_metadata(nullptr, &n) && !edge_model_chat_template(nullptr, &n) && n == 7, "no texts");
    check(edge_session_position(nullptr) == 0, "no position");
    for (const edge_status status :
         {edge_model_level_info(nullptr, 0, &info), edge_model_estimate(nullptr, 0, 0, 0, &memory), edge_model_verify(nullptr),
          edge_tokenize(nullptr, "x", 1, 0, 0, nullptr, 0, &n), edge_detokenize(nullptr, &token, 1, 0, nullptr, 0, &n),
          edge_session_open(nullptr, &session), edge_session_rewind(nullptr, 0),
          edge_session_feed(nullptr, nullptr, 0, 0, nullptr), edge_session_set_sampling(nullptr, nullptr),
          edge_session_next(nullptr, &token),
          edge_session_generate(nullptr, nullptr, 0, 0, nullptr, 0, nullptr, nullptr, nullptr)}) {
        check(status == EDGE_BAD_ARGUMENT, "a NULL handle is the caller's fault: " + std::to_string(status));
    }
    edge_session_cancel(nullptr);
    edge_session_reset(nullptr);
    edge_model_close(nullptr);
    edge_session_close(nullptr);
}

// Callers that were compiled with another edge.h.
void test_struct_sizes() {
    struct Newer {
        edge_load_options options;
        uint64_t field;
    } newer{};
    newer.options.struct_size = sizeof newer;
    edge_model* model = nullptr;
    const auto load_newer = [&] { return edge_model_load("/nowhere/model.edge", &newer.options, &model); };
    check(load_newer() == EDGE_NOT_FOUND, "a newer struct whose new field is zero");
    newer.field = uint64_t{1} << 40;
    check(load_newer() == EDGE_BAD_ARGUMENT && contains(edge_last_error(), "does not know"), edge_last_error());
    newer.options.struct_size = offsetof(edge_load_options, rate);
    check(load_newer() == EDGE_NOT_FOUND, "an older struct is shorter");
    for (const size_t size : {size_t{0}, sizeof(size_t) - 1, size_t{5000}, SIZE_MAX}) {
        newer.options.struct_size = size;
        check(load_newer() == EDGE_BAD_ARGUMENT && contains(edge_last_error(), "struct_size"), edge_last_error());
    }
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
    path = edge_test::temporary_file();
    check(*edge_version() != '\0' && *edge_isa() != '\0', "version and isa");
    test_headers();
    test_arguments();
    test_null_handles();
    test_struct_sizes();
    test_errors_belong_to_threads();
    unlink(path.c_str());
    return finish();
}
