// Conversations as the header's `tokenizer.chat` says (formats/SPEC.md section 7). The header is hostile.
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace edge::run {

// Without the white space around it.
std::string trimmed(const std::string& text);

class ChatFormat {
public:
    // `metadata`: the `edge` JSON text of an artifact. Throws Failure where it has no chat format, or one that breaks section 7.
    explicit ChatFormat(std::string_view metadata);

    // Throws Failure for a system message that the format has no place for.
    std::string begin(const std::string& system) const;

    std::string user(const std::string& content, bool after_system) const;

    // What a turn adds to the conversation once it is complete.
    std::string turn(const std::string& user, const std::string& assistant, bool after_system) const;

private:
    struct Role {
        std::string prefix, suffix;
        bool trims = false;
        std::string around(const std::string& content) const { return prefix + (trims ? trimmed(content) : content) + suffix; }
    };

    Role system_, user_, user_after_system_, assistant_;
    bool takes_system_ = false;
    std::string default_system_, generation_prompt_;
};

}  // namespace edge::run
