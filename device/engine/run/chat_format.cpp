#include "chat_format.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "program.h"

namespace edge::run {
namespace {

using Json = nlohmann::json;

[[noreturn]] void broken(const std::string& what) {
    throw Failure("`tokenizer.chat` of this artifact " + what + " (section 7 of the format)\nhint: use `edge-run generate`");
}

std::string text(const Json& chat, const char* key) {
    const auto found = chat.find(key);
    if (found == chat.end() || !found->is_string()) broken(std::string("has no text `") + key + "`");
    return found->get<std::string>();
}

std::vector<std::string> texts(const Json& chat, const char* key) {
    const auto found = chat.find(key);
    const bool legal = found != chat.end() && found->is_array() &&
                       std::all_of(found->begin(), found->end(), [](const Json& entry) { return entry.is_string(); });
    if (!legal) broken(std::string("has no list of texts `") + key + "`");
    return found->get<std::vector<std::string>>();
}

}  // namespace

std::string trimmed(const std::string& text) {
    constexpr const char* kSpace = " \t\r\n\f\v";
    const size_t begin = text.find_first_not_of(kSpace);
    return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

ChatFormat::ChatFormat(std::string_view metadata) {
    const Json edge = Json::parse(metadata, nullptr, false);
    const auto tokenizer = edge.find("tokenizer");
    if (!edge.is_object() || tokenizer == edge.end() || !tokenizer->is_object()) broken("is missing");
    const auto found = tokenizer->find("chat");
    if (found == tokenizer->end() || found->is_null()) {
        throw Failure("this artifact has no chat format for native programs: its template cannot be written as prefixes and "
                      "suffixes\nhint: use `edgesdk chat`, which renders the template itself, or `edge-run generate`");
    }
    const Json& chat = *found;
    if (!chat.is_object()) broken("is no object");
    const std::vector<std::string> trim = texts(chat, "trim");
    const auto role = [&](const char* name) {
        const std::vector<std::string> pair = texts(chat, name);
        if (pair.size() != 2) broken(std::string("has in `") + name + "` not a prefix and a suffix");
        return Role{pair[0], pair[1], std::find(trim.begin(), trim.end(), name) != trim.end()};
    };
    takes_system_ = chat.contains("system") && !chat["system"].is_null();
    if (takes_system_) system_ = role("system");
    user_ = user_after_system_ = role("user");
    user_after_system_.prefix = text(chat, "user_after_system");
    assistant_ = role("assistant");
    default_system_ = text(chat, "default_system");
    generation_prompt_ = text(chat, "generation_prompt");
}

std::string ChatFormat::begin(const std::string& system) const {
    if (system.empty()) return default_system_;
    if (!takes_system_) throw Failure("this model's chat format takes no system message\nhint: leave --system out");
    return system_.around(system);
}

std::string ChatFormat::user(const std::string& content, bool after_system) const {
    return (after_system ? user_after_system_ : user_).around(content) + generation_prompt_;
}

std::string ChatFormat::turn(const std::string& user, const std::string& assistant, bool after_system) const {
    return (after_system ? user_after_system_ : user_).around(user) + assistant_.around(assistant);
}

}  // namespace edge::run
