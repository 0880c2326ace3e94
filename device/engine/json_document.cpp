#include "json_document.h"

#include <utility>
#include <vector>

#include "json_fields.h"

namespace edge {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxValues = 4'000'000;

// Bounds the work and memory of the parser by one pass over the text.
void check_size(std::string_view text, const char* rule, const std::string& what) {
    int depth = 0;
    size_t n_values = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (quoted) {
            if (c == '\\') ++i;
            if (c == '"') quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            ++n_values;
            if (++depth > kMaxDepth) break_rule(rule, what + " is nested deeper than 32 levels");
        } else if (c == ']' || c == '}') {
            --depth;
        } else if (c == ',' && ++n_values > kMaxValues) {
            break_rule(rule, what + " has more than 4 million values");
        }
    }
}

// Puts values where they belong, in a document that outlives a failure on the way. Of members of the same name the last counts.
class Builder final : public nlohmann::json_sax<Json> {
public:
    explicit Builder(Json& root) : root_(root) {}

    bool null() override { return add(Json()); }
    bool boolean(bool value) override { return add(Json(value)); }
    bool number_integer(number_integer_t value) override { return add(Json(value)); }
    bool number_unsigned(number_unsigned_t value) override { return add(Json(value)); }
    bool number_float(number_float_t value, const string_t&) override { return add(Json(value)); }
    bool string(string_t& value) override { return add(Json(std::move(value))); }
    bool binary(binary_t&) override { return false; }
    bool start_object(std::size_t) override { return open(Json(Json::value_t::object)); }
    bool start_array(std::size_t) override { return open(Json(Json::value_t::array)); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

    bool key(string_t& name) override {
        member_ = &open_.back()->get_ref<Json::object_t&>()[name];
        return true;
    }

private:
    bool add(Json&& value) {
        put(std::move(value));
        return true;
    }

    bool open(Json&& value) {
        open_.push_back(put(std::move(value)));
        return true;
    }

    bool close() {
        open_.pop_back();
        return true;
    }

    Json* put(Json&& value) {
        Json* place = &root_;
        if (!open_.empty() && open_.back()->is_array()) {
            auto& list = open_.back()->get_ref<Json::array_t&>();
            list.emplace_back();
            place = &list.back();
        } else if (!open_.empty()) {
            place = member_;
        }
        JsonDocument::empty(*place);
        *place = std::move(value);
        return place;
    }

    Json& root_;
    Json* member_ = nullptr;
    std::vector<Json*> open_;  // a value in a list moves only when its list grows: never while it is open itself
};

}  // namespace

void JsonDocument::empty(Json& value) noexcept {
    if (value.is_array()) {
        auto& members = value.get_ref<Json::array_t&>();
        for (Json& member : members) empty(member);
        members.clear();
    } else if (value.is_object()) {
        auto& members = value.get_ref<Json::object_t&>();
        for (auto& [name, member] : members) empty(member);
        members.clear();
    }
}

JsonDocument parse_json(std::string_view text, const char* rule, const std::string& what) {
    check_size(text, rule, what);
    JsonDocument document;
    Builder builder(document.root());
    if (!Json::sax_parse(text.begin(), text.end(), &builder)) break_rule(rule, what + " is not valid JSON");
    if (!document.root().is_object()) break_rule(rule, what + " is not a JSON object");
    return document;
}

}  // namespace edge
