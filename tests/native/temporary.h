// Files and folders of a test's own, under the system's folder for such.
#pragma once
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace edge_test {

inline std::string temporary_name() { return (std::filesystem::temp_directory_path() / "edge-test-XXXXXX").string(); }

// Who asks for it removes it.
inline std::string temporary_file() {
    std::string path = temporary_name();
    const int file = mkstemp(path.data());
    if (file < 0) std::abort();
    close(file);
    return path;
}

// A folder that goes with this object, and files in it that stand for those of a system.
struct TemporaryFolder {
    TemporaryFolder() : root(temporary_name()) {
        if (!mkdtemp(root.data())) std::abort();
    }
    ~TemporaryFolder() { std::filesystem::remove_all(root); }
    TemporaryFolder(const TemporaryFolder&) = delete;
    void write(const std::string& path, const std::string& text) const {
        std::filesystem::create_directories(std::filesystem::path(root + path).parent_path());
        std::ofstream(root + path) << text;
    }
    std::string root;
};

}  // namespace edge_test
