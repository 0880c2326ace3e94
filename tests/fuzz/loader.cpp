#include <sys/mman.h>
#include <unistd.h>

#include "damage.h"
#include "small_artifact.h"
#include "targets.h"

namespace edge_fuzz {
namespace {

void run(std::string_view input) {
    static const int file = memfd_create("edge-fuzz", 0);
    static const std::string path = "/proc/self/fd/" + std::to_string(file);
    require(file >= 0 && ftruncate(file, static_cast<off_t>(input.size())) == 0, "memory for a file");
    require(pwrite(file, input.data(), input.size(), 0) == static_cast<ssize_t>(input.size()), "the file is written");
    edge_test::load_and_run(path);
}

std::vector<std::string> seeds() {
    const std::string good = edge_test::small_artifact();
    return {good, good.substr(0, good.size() / 2), good.substr(0, 5000), ""};
}

std::string mutate(const std::string& input, uint32_t seed) { return edge_test::Damage(seed).apply(input); }

}  // namespace

const Target kLoader = {"loader", run, seeds, mutate};

}  // namespace edge_fuzz
