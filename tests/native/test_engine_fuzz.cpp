// Artifacts that are damaged at random: each is refused with an error, or loads and runs. For machines without clang, and for
// other architectures; the fuzzers of tests/fuzz make the same changes, guided by what the engine does with them.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

#include "damage.h"
#include "engine_check.h"
#include "small_artifact.h"

int main() {
    const std::string good = edge_test::small_artifact(), path = edge_test::write_temporary(good);
    constexpr int kFiles = 600;
    int n_loaded = 0;
    for (uint32_t seed = 1; seed <= kFiles; ++seed) {
        std::ofstream(path, std::ios::binary | std::ios::trunc) << edge_test::Damage(seed).apply(good);
        n_loaded += edge_test::load_and_run(path) == EDGE_OK;
    }
    std::printf("%d damaged files: %d loaded and ran, %d were refused\n", kFiles, n_loaded, kFiles - n_loaded);
    check(n_loaded > kFiles / 20 && n_loaded < kFiles * 19 / 20, "both happen");
    unlink(path.c_str());
    return finish();
}
