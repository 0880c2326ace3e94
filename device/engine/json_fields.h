// Typed access to fields of a hostile JSON header; every failure names the rule of SPEC.md and the field.
#pragma once
#include <cstdint>
#include <string>

#include "json_document.h"

namespace edge {

// Throws EDGE_BAD_ARTIFACT: "<what> (rule <rule>)".
[[noreturn]] void break_rule(const char* rule, const std::string& what);

// A value as it stands in messages, cut to a readable length.
std::string shown(const Json& value);

// `where` names the object in messages ("model.blocks[3]").
const Json& member(const Json& object, const char* key, const std::string& where, const char* rule);
uint64_t integer(const Json& value, uint64_t low, uint64_t high, const std::string& where, const char* rule);
uint64_t integer(const Json& object, const char* key, uint64_t low, uint64_t high, const std::string& where,
                 const char* rule);
double number(const Json& object, const char* key, const std::string& where, const char* rule);
bool boolean(const Json& object, const char* key, const std::string& where, const char* rule);
const std::string& text(const Json& object, const char* key, const std::string& where, const char* rule);
// A list or object with n_low..n_high members.
const Json& list(const Json& object, const char* key, size_t n_low, size_t n_high, const std::string& where,
                 const char* rule);
const Json& object(const Json& parent, const char* key, const std::string& where, const char* rule);

}  // namespace edge
