// What was compiled for a device, and that it passed its self-test, in files: EDGE_CACHE_DIR, or edgesdk in the user's cache folder
// (XDG_CACHE_HOME, or .cache in HOME). Where there is none of these, or it cannot be written, nothing is kept.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace edge::gpu {

// A name for files that depend on all of these and on the engine's version.
std::string cache_key(std::initializer_list<std::string_view> parts);

std::vector<uint8_t> read_program(const std::string& key);  // empty: there is none
void write_program(const std::string& key, const std::vector<uint8_t>& program) noexcept;

bool has_passed(const std::string& key);
void write_passed(const std::string& key) noexcept;

}  // namespace edge::gpu
