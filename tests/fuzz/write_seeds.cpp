// Writes the seed corpus: write_seeds FOLDER makes FOLDER/TARGET/seed-N.
#include <filesystem>
#include <fstream>

#include "targets.h"

int main(int n_arguments, char** arguments) {
    using namespace edge_fuzz;
    if (n_arguments != 2) return 2;
    for (const Target* target : {&kLoader, &kTokenizer, &kSampler, &kChat, &kText}) {
        const std::filesystem::path folder = std::filesystem::path(arguments[1]) / target->name;
        std::filesystem::create_directories(folder);
        int n = 0;
        for (const std::string& seed : target->seeds()) {
            std::ofstream(folder / ("seed-" + std::to_string(n++)), std::ios::binary) << seed;
        }
    }
    return 0;
}
