// The fuzzers: each takes any bytes as its input and ends the program where something does not hold that should.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace edge_fuzz {

struct Target {
    const char* name;
    void (*run)(std::string_view input);
    std::vector<std::string> (*seeds)();
    // Changes the structure of an input; nullptr: bytes are all there is to change.
    std::string (*mutate)(const std::string& input, uint32_t seed);
};

extern const Target kLoader;     // an artifact, which is loaded and run
extern const Target kTokenizer;  // tables and a description of a tokenizer, and text for it
extern const Target kSampler;    // options, logits and a history
extern const Target kChat;       // the plain strings of a chat format, and a conversation
extern const Target kText;       // stop strings, and the tokens of an answer

inline void require(bool held, const char* what) {
    if (held) return;
    std::fprintf(stderr, "failed: %s\n", what);
    std::abort();
}

// Takes an input apart from its front; where it ends there are zeros and empty texts.
class Input {
public:
    explicit Input(std::string_view bytes) : bytes_(bytes) {}

    template <typename T>
    T number() {
        T value{};
        const std::string_view taken = text(sizeof value);
        std::memcpy(&value, taken.data(), taken.size());
        return value;
    }

    std::string_view text(size_t n) {
        const std::string_view taken = bytes_.substr(0, n);
        bytes_.remove_prefix(taken.size());
        return taken;
    }

    std::string_view rest() { return text(bytes_.size()); }
    bool empty() const { return bytes_.empty(); }

private:
    std::string_view bytes_;
};

}  // namespace edge_fuzz
