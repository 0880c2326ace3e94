#include <algorithm>

#include "damage.h"
#include "run/chat_format.h"
#include "run/program.h"
#include "targets.h"

namespace edge_fuzz {
namespace {

// Takes what stands before the first zero byte, and the zero byte.
std::string until_zero(std::string_view& bytes) {
    const std::string found(bytes.substr(0, bytes.find('\0')));
    bytes.remove_prefix(std::min(bytes.size(), found.size() + 1));
    return found;
}

// An input: a header's `edge` text, a system message, a user's and an answer, with zero bytes between them.
void run(std::string_view bytes) {
    const std::string metadata = until_zero(bytes), system = until_zero(bytes), user = until_zero(bytes), answer(bytes);
    try {
        const edge::run::ChatFormat format(metadata);
        require(format.user(user, false).find(edge::run::trimmed(user)) != std::string::npos, "what a user says is there");
        format.user(user, true);
        require(format.turn(user, answer, false).find(edge::run::trimmed(answer)) != std::string::npos, "and the answer");
        require(system.empty() || format.begin(system).find(edge::run::trimmed(system)) != std::string::npos, "and the system's");
    } catch (const edge::run::Failure&) {
        // an error of its own; any other exception ends the program
    }
}

std::vector<std::string> seeds() {
    const std::string chat =
        R"({"tokenizer":{"chat":{"default_system":"<bos>","system":["<bos>[system]","\n"],"user":["[user]","\n"],)"
        R"("user_after_system":"[user]","assistant":["[assistant]","\n"],"generation_prompt":"[assistant]","trim":["user"]}}})";
    const std::string plain =
        R"({"tokenizer":{"chat":{"default_system":"","system":null,"user":["",""],"user_after_system":"",)"
        R"("assistant":["",""],"generation_prompt":"","trim":[]}}})";
    const std::string talk("\0be brief\0  hello \n\0good day", 29);
    return {chat + talk, plain + talk, R"({"tokenizer":{"chat":null}})" + talk, "{}"};
}

std::string mutate(const std::string& input, uint32_t seed) {
    const size_t end = std::min(input.find('\0'), input.size());
    return edge_test::Damage(seed).apply_to_json(input.substr(0, end)) + input.substr(end);
}

}  // namespace

const Target kChat = {"chat", run, seeds, mutate};

}  // namespace edge_fuzz
