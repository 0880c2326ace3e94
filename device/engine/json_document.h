// JSON of a hostile header, built and taken apart so that a lack of memory is an exception, never the end of the program.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace edge {

using Json = nlohmann::json;

// Owns what parse_json built. nlohmann's destructor allocates a list of what it takes apart, so it may not meet values with
// members when there is no memory; this one empties them before, from the leaves up.
class JsonDocument {
public:
    JsonDocument() = default;
    JsonDocument(JsonDocument&&) noexcept = default;
    ~JsonDocument() { empty(root_); }

    Json& root() { return root_; }
    const Json& root() const { return root_; }

    static void empty(Json& value) noexcept;

private:
    Json root_;
};

// Parses text to an object, refusing more than 32 nested or 4 million values before anything is built. Failures are
// EDGE_BAD_ARTIFACT and name the rule of SPEC.md and what was parsed.
JsonDocument parse_json(std::string_view text, const char* rule, const std::string& what);

}  // namespace edge
