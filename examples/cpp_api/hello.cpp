// Continues a text with one level of an artifact: the engine from C++, with handles that close themselves.
//
//     cmake -S examples/cpp_api -B build -DCMAKE_PREFIX_PATH=BUNDLE && cmake --build build
//     build/hello model.edge 3 "Once upon a time"
#include <edge.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Close {
    void operator()(edge_model* model) const { edge_model_close(model); }
    void operator()(edge_session* session) const { edge_session_close(session); }
};
using Model = std::unique_ptr<edge_model, Close>;
using Session = std::unique_ptr<edge_session, Close>;

void check(edge_status status) {
    if (status != EDGE_OK) throw std::runtime_error(edge_last_error());
}

Model load(const std::string& path, int32_t level) {
    edge_load_options options{};  // zero: the default in every field
    options.struct_size = sizeof options;
    options.choose = 3;  // by level
    options.level = level;
    edge_model* model = nullptr;
    check(edge_model_load(path.c_str(), &options, &model));
    return Model(model);
}

Session open_session(const Model& model) {
    edge_session* session = nullptr;
    check(edge_session_open(model.get(), &session));
    return Session(session);
}

std::vector<int32_t> tokenize(const Model& model, const std::string& text) {
    size_t n_tokens = 0;
    check(edge_tokenize(model.get(), text.data(), text.size(), 0, 1, nullptr, 0, &n_tokens));
    std::vector<int32_t> tokens(n_tokens);
    check(edge_tokenize(model.get(), text.data(), text.size(), 0, 1, tokens.data(), tokens.size(), &n_tokens));
    return tokens;
}

int32_t print_text(const char* utf8, size_t n_bytes, void*) {
    std::fwrite(utf8, 1, n_bytes, stdout);
    std::fflush(stdout);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: hello FILE.edge LEVEL PROMPT\n");
        return 2;
    }
    try {
        const Model model = load(argv[1], std::stoi(argv[2]));
        std::fprintf(stderr, "%s\n", edge_model_level_reason(model.get()));
        const Session session = open_session(model);
        const std::vector<int32_t> prompt = tokenize(model, argv[3]);
        check(edge_session_generate(session.get(), prompt.data(), prompt.size(), 24, nullptr, 0, print_text, nullptr, nullptr));
        std::putchar('\n');
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
