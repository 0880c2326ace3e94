#include "program_cache.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "sha256.h"

namespace edge::gpu {
namespace {

namespace fs = std::filesystem;

std::string from_environment(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

// Empty: there is none.
fs::path folder() {
    if (const std::string given = from_environment("EDGE_CACHE_DIR"); !given.empty()) return fs::path(given) / "gpu";
    if (const std::string cache = from_environment("XDG_CACHE_HOME"); !cache.empty()) return fs::path(cache) / "edgesdk" / "gpu";
    if (const std::string home = from_environment("HOME"); !home.empty()) return fs::path(home) / ".cache" / "edgesdk" / "gpu";
    return {};
}

std::vector<uint8_t> read_file(const std::string& name) {
    const fs::path from = folder();
    if (from.empty()) return {};
    std::ifstream file(from / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// Under another name first: a reader sees all of it or nothing. What fails is only not kept.
void write_file(const std::string& name, const std::vector<uint8_t>& bytes) noexcept {
    try {
        const fs::path to = folder();
        if (to.empty()) return;
        fs::create_directories(to);
        const fs::path part = to / (name + "." + std::to_string(getpid()));
        std::ofstream file(part, std::ios::binary);
        file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        file.close();
        std::error_code failed;
        if (file) fs::rename(part, to / name, failed);
        if (!file || failed) fs::remove(part, failed);
    } catch (...) {
        return;
    }
}

}  // namespace

std::string cache_key(std::initializer_list<std::string_view> parts) {
    Sha256 hash;
    const auto add = [&hash](std::string_view part) {
        hash.update(part.data(), part.size());
        hash.update("", 1);  // the zero that ends it: no two lists of parts look the same
    };
    add(EDGE_VERSION);
    for (const std::string_view part : parts) add(part);
    return hex(hash.finish()).substr(0, 32);
}

std::vector<uint8_t> read_program(const std::string& key) { return read_file(key + ".program"); }

void write_program(const std::string& key, const std::vector<uint8_t>& program) noexcept { write_file(key + ".program", program); }

bool has_passed(const std::string& key) { return !read_file(key + ".passed").empty(); }

void write_passed(const std::string& key) noexcept { write_file(key + ".passed", {'1'}); }

}  // namespace edge::gpu
