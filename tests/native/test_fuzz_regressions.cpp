// The fuzzers' targets without libFuzzer: their seeds, a few changes of each, and what once broke them
// (tests/fuzz/regressions/TARGET/NAME). A target ends the program where something does not hold.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine_check.h"
#include "targets.h"

int main() {
    using namespace edge_fuzz;
    namespace fs = std::filesystem;
    for (const Target* target : {&kLoader, &kTokenizer, &kSampler, &kChat, &kText}) {
        const std::vector<std::string> seeds = target->seeds();
        check(!seeds.empty(), std::string(target->name) + " has seeds");
        for (const std::string& seed : seeds) {
            target->run(seed);
            for (uint32_t i = 0; target->mutate && i < 20; ++i) target->run(target->mutate(seed, i));
        }
        int n_files = 0;
        const fs::path folder = fs::path(EDGE_FUZZ_REGRESSIONS) / target->name;
        for (const auto& entry : fs::is_directory(folder) ? fs::directory_iterator(folder) : fs::directory_iterator()) {
            std::ifstream file(entry.path(), std::ios::binary);
            std::printf("%s: %s\n", target->name, entry.path().filename().c_str());
            std::fflush(stdout);  // before it ends the program, perhaps
            target->run(std::string(std::istreambuf_iterator<char>(file), {}));
            ++n_files;
        }
        std::printf("%s: %zu seeds, %d regressions\n", target->name, seeds.size(), n_files);
    }
    return finish();
}
