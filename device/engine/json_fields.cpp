#include "json_fields.h"

#include <cmath>

#include "errors.h"

namespace edge {
namespace {

std::string dotted(const std::string& where, const char* key) { return where.empty() ? key : where + "." + key; }

}  // namespace

void break_rule(const char* rule, const std::string& what) {
    throw Error{EDGE_BAD_ARTIFACT, what + " (rule " + rule +
                                       " of the format)\nhint: copy the file again, or rebuild it with `edgesdk build`"};
}

std::string shown(const Json& value) {
    if (value.is_structured()) return value.is_array() ? "a list" : "an object";
    const std::string whole = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    return whole.size() <= 60 ? whole : whole.substr(0, 57) + "...";
}

const Json& member(const Json& object, const char* key, const std::string& where, const char* rule) {
    const auto found = object.find(key);
    if (found == object.end()) break_rule(rule, "`" + dotted(where, key) + "` is missing");
    return *found;
}

uint64_t integer(const Json& value, uint64_t low, uint64_t high, const std::string& where, const char* rule) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() < low || value.get<uint64_t>() > high) {
        break_rule(rule, "`" + where + "` is " + shown(value) + ", expected an integer from " + std::to_string(low) +
                             " to " + std::to_string(high));
    }
    return value.get<uint64_t>();
}

uint64_t integer(const Json& object, const char* key, uint64_t low, uint64_t high, const std::string& where,
                 const char* rule) {
    return integer(member(object, key, where, rule), low, high, dotted(where, key), rule);
}

double number(const Json& object, const char* key, const std::string& where, const char* rule) {
    const Json& value = member(object, key, where, rule);
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
        break_rule(rule, "`" + dotted(where, key) + "` is " + shown(value) + ", expected a finite number");
    }
    return value.get<double>();
}

bool boolean(const Json& object, const char* key, const std::string& where, const char* rule) {
    const Json& value = member(object, key, where, rule);
    if (!value.is_boolean()) {
        break_rule(rule, "`" + dotted(where, key) + "` is " + shown(value) + ", expected true or false");
    }
    return value.get<bool>();
}

const std::string& text(const Json& object, const char* key, const std::string& where, const char* rule) {
    const Json& value = member(object, key, where, rule);
    if (!value.is_string()) break_rule(rule, "`" + dotted(where, key) + "` is " + shown(value) + ", expected text");
    return value.get_ref<const std::string&>();
}

const Json& list(const Json& object, const char* key, size_t n_low, size_t n_high, const std::string& where,
                 const char* rule) {
    const Json& value = member(object, key, where, rule);
    if (!value.is_array() || value.size() < n_low || value.size() > n_high) {
        const std::string found = value.is_array() ? "a list of " + std::to_string(value.size()) : shown(value);
        break_rule(rule, "`" + dotted(where, key) + "` is " + found + ", expected a list of " + std::to_string(n_low) +
                             (n_low == n_high ? "" : " to " + std::to_string(n_high)));
    }
    return value;
}

const Json& object(const Json& parent, const char* key, const std::string& where, const char* rule) {
    const Json& value = member(parent, key, where, rule);
    if (!value.is_object()) break_rule(rule, "`" + dotted(where, key) + "` is " + shown(value) + ", expected an object");
    return value;
}

}  // namespace edge
