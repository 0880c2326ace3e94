// Stop strings: never shown, not even in part, however the text is cut into pieces.
#include <cstdint>
#include <vector>

#include "engine_check.h"
#include "text_filter.h"

using namespace edge;

namespace {

// What is shown of `text` when it comes in pieces of `step` bytes; every prefix shown on the way must begin the result.
std::string shown(const std::string& text, const std::vector<std::string>& stops, size_t step) {
    TextFilter filter(stops);
    std::string out;
    for (size_t i = 0; i < text.size(); i += step) {
        if (filter.push(std::string_view(text).substr(i, step), out)) return out;
    }
    filter.finish(out);
    return out;
}

struct Case {
    std::string text;
    std::vector<std::string> stops;
    std::string expected;
};

}  // namespace

int main() {
    const Case cases[] = {
        {"hello world", {}, "hello world"},
        {"hello world", {""}, "hello world"},
        {"hello world", {"lo w"}, "hel"},
        {"hello", {"low"}, "hello"},
        {"aaab", {"aab"}, "a"},
        {"abababc", {"ababc"}, "ab"},
        {"one two three", {"three", "two"}, "one "},
        {"stop", {"stop"}, ""},
        {"\xc3\xa9t\xc3\xa9!", {"t\xc3\xa9"}, "\xc3\xa9"},
    };
    for (const Case& c : cases) {
        for (size_t step = 1; step <= c.text.size(); ++step) {
            const std::string found = shown(c.text, c.stops, step);
            check(found == c.expected, "\"" + c.text + "\" by " + std::to_string(step) + " gave \"" + found + "\"");
        }
    }
    TextFilter filter({"END"});
    std::string out;
    filter.push("fine E", out);
    check(out == "fine " && filter.n_held_bytes() == 1, "what may begin a stop string waits");
    filter.push("asy", out);
    check(out == "fine Easy" && filter.n_held_bytes() == 0, "and is shown once it does not");
    return finish();
}
