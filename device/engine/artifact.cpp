#include "artifact.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "artifact_fields.h"
#include "artifact_tensors.h"
#include "bytes.h"
#include "errors.h"

namespace edge {
namespace {

constexpr uint64_t kMaxHeaderBytes = 64 << 20;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kMaxOffset = uint64_t{1} << 53;  // what every JSON reader represents exactly
constexpr int kMajorVersion = 2;  // and all before it
constexpr size_t kMaxLevels = 1000;  // with kMaxRuns: far above any ladder, and they bound the work of checking one
constexpr size_t kMaxRuns = 100'000;

void read_exactly(int file, char* out, uint64_t n_bytes, uint64_t offset) {
    while (n_bytes > 0) {
        const ssize_t n = pread(file, out, n_bytes, static_cast<off_t>(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) throw Error{EDGE_IO, std::string("could not read the header: ") + (n ? strerror(errno) : "end of file")};
        out += n, n_bytes -= static_cast<uint64_t>(n), offset += static_cast<uint64_t>(n);
    }
}

// Rules 1.1 and 1.2.
std::string read_header(int file, uint64_t n_file_bytes) {
    if (n_file_bytes < 8) break_rule("1.1", "the file has " + std::to_string(n_file_bytes) + " bytes and is no artifact");
    unsigned char length[8];
    read_exactly(file, reinterpret_cast<char*>(length), 8, 0);
    uint64_t header_bytes = 0;
    for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | length[i];
    if (header_bytes > kMaxHeaderBytes || (8 + header_bytes) % kPage != 0) {
        break_rule("1.2", "`header_bytes` is " + std::to_string(header_bytes) + ", expected at most 64 MiB and whole pages");
    }
    if (8 + header_bytes > n_file_bytes) {
        throw Error{EDGE_TRUNCATED, "the file ends inside its header: " + std::to_string(n_file_bytes) + " of " +
                                        std::to_string(8 + header_bytes) + " bytes (rule 1.1)\nhint: copy the file again"};
    }
    std::string header(header_bytes, '\0');
    read_exactly(file, header.data(), header_bytes, 8);
    return header;
}

// Rule 1.7. Returns the major version.
int check_version(const Json& edge) {
    const std::string& version = text(edge, "format_version", "edge", "1.7");
    int major = -1;
    const auto [end, error] = std::from_chars(version.data(), version.data() + version.size(), major);
    if (error != std::errc{} || end == version.data() + version.size() || *end != '.' || major < 0) {
        break_rule("1.7", "`edge.format_version` is " + shown(version) + ", expected \"major.minor\"");
    }
    if (major < 1 || major > kMajorVersion) {
        throw UnsupportedError("`edge.format_version` is " + version + ", this engine reads 1.x to " +
                               std::to_string(kMajorVersion) + ".x (rule 1.7)\nhint: update edgesdk");
    }
    return major;
}

// Section 5.
std::vector<Run> read_runs(const Json& edge, uint64_t n_data_bytes, int n_levels) {
    std::vector<Run> runs;
    uint64_t offset = 0;
    int32_t first_level = 0;
    for (const Json& entry : list(edge, "runs", 1, kMaxRuns, "edge", "5")) {
        const std::string where = "edge.runs[" + std::to_string(runs.size()) + "]";
        if (!entry.is_object()) break_rule("5", "`" + where + "` is " + shown(entry) + ", expected an object");
        Run run;
        run.begin = integer(entry, "begin", 0, kMaxOffset, where, "5.1");
        run.end = integer(entry, "end", 0, kMaxOffset, where, "5.1");
        run.first_level = static_cast<int32_t>(integer(entry, "first_level", first_level, n_levels - 1, where, "5.1"));
        run.last_level = static_cast<int32_t>(integer(entry, "last_level", run.first_level, n_levels - 1, where, "5.1"));
        if (run.begin != offset || run.end < run.begin || run.end % kPage != 0) {
            break_rule("5.1", "`" + where + "` is [" + std::to_string(run.begin) + ", " + std::to_string(run.end) +
                                  "), expected whole pages from " + std::to_string(offset));
        }
        run.sha256 = text(entry, "sha256", where, "5.4");
        if (run.sha256.size() != 64 || run.sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
            break_rule("5.4", "`" + where + ".sha256` is " + shown(run.sha256) + ", expected 64 hex digits");
        }
        offset = run.end;
        first_level = run.first_level;
        runs.push_back(std::move(run));
    }
    if (offset != n_data_bytes) {
        break_rule("5.1", "runs end at " + std::to_string(offset) + ", tensors at " + std::to_string(n_data_bytes));
    }
    return runs;
}

double measured(const Json& entry, const char* key, const std::string& where) {
    const auto found = entry.find(key);
    if (found == entry.end() || found->is_null()) return std::numeric_limits<double>::quiet_NaN();
    return number(entry, key, where, "6.4");
}

std::vector<std::array<int32_t, 2>> read_allocation(const Json& entry, const std::string& where, const ModelSpec& model) {
    std::vector<std::array<int32_t, 2>> allocation;
    const size_t n_blocks = model.blocks.size();
    for (const Json& kept : list(entry, "allocation", n_blocks, n_blocks, where, "6.1")) {
        const BlockSpec& block = model.blocks[allocation.size()];
        const size_t n_axes = block.kind == BlockKind::mlp ? 1 : 2;
        const std::string field = where + ".allocation[" + std::to_string(allocation.size()) + "]";
        if (!kept.is_array() || kept.size() != n_axes) {
            break_rule("6.1", "`" + field + "` is " + shown(kept) + ", expected " + std::to_string(n_axes) + " sizes");
        }
        std::array<int32_t, 2> sizes{};
        for (size_t a = 0; a < n_axes; ++a) {
            const Axis& axis = block.axes[a];
            sizes[a] = static_cast<int32_t>(integer(kept[a], 0, static_cast<uint64_t>(axis.size), field, "6.1"));
            if (sizes[a] != axis.size && sizes[a] % axis.quantum != 0) {
                break_rule("6.1", "`" + field + "` keeps " + std::to_string(sizes[a]) + ", expected a multiple of " +
                                      std::to_string(axis.quantum));
            }
        }
        if (n_axes == 2 && (sizes[0] == 0) != (sizes[1] == 0)) {
            break_rule("3", "`" + field + "` drops one of its two axes, expected both or none");
        }
        allocation.push_back(sizes);
    }
    return allocation;
}

// Rule 6.2: sizes are what the runs say.
void check_sizes(const Level& level, int index, const Artifact& artifact, const std::string& where) {
    uint64_t mapped_bytes = 0, last = 0;
    for (const Run& run : artifact.runs) {
        if (run.used_by(index)) mapped_bytes += run.end - run.begin;
        if (run.first_level <= index) last = run.end;
    }
    if (level.mapped_bytes != mapped_bytes || level.file_bytes != artifact.data_offset + last) {
        break_rule("6.2", "`" + where + "` has mapped_bytes " + std::to_string(level.mapped_bytes) + " and file_bytes " +
                              std::to_string(level.file_bytes) + ", runs give " + std::to_string(mapped_bytes) + " and " +
                              std::to_string(artifact.data_offset + last));
    }
}

// Section 6, but for block_bytes, which needs the panels.
void read_levels(const Json& edge, Artifact& artifact) {
    const Json& entries = list(edge, "levels", 1, kMaxLevels, "edge", "6");
    for (size_t k = 0; k < entries.size(); ++k) {
        const std::string where = "edge.levels[" + std::to_string(k) + "]";
        const Json& entry = entries[k];
        if (!entry.is_object()) break_rule("6", "`" + where + "` is " + shown(entry) + ", expected an object");
        Level level;
        level.rate = number(entry, "rate", where, "6.3");
        level.mapped_bytes = integer(entry, "mapped_bytes", 0, kMaxOffset, where, "6.2");
        level.file_bytes = integer(entry, "file_bytes", 0, kMaxOffset, where, "6.2");
        level.perplexity = measured(entry, "perplexity", where);
        level.kl = measured(entry, "kl", where);
        level.allocation = read_allocation(entry, where, artifact.model);
        check_sizes(level, static_cast<int>(k), artifact, where);
        const bool is_top = k + 1 == entries.size();
        for (size_t b = 0; b < level.allocation.size(); ++b) {
            for (int a = 0; a < 2; ++a) {
                const int32_t kept = level.allocation[b][a];
                const int32_t low = k ? artifact.levels[k - 1].allocation[b][a] : 0;
                if (kept < low || (is_top && kept != artifact.model.blocks[b].axes[a].size)) {
                    break_rule("6.1", "`" + where + ".allocation[" + std::to_string(b) + "]` keeps " +
                                          std::to_string(kept) + ", expected " +
                                          (is_top ? "the full size" : "at least " + std::to_string(low)));
                }
            }
        }
        const double above = k ? artifact.levels[k - 1].rate : 1.0;
        if (level.rate > 1 || (k && level.rate >= above) || (is_top ? level.rate != 0 : level.rate <= 0)) {
            break_rule("6.3", "`" + where + ".rate` is " + shown(level.rate) + ", expected rates that descend to 0");
        }
        artifact.levels.push_back(std::move(level));
    }
}

}  // namespace

int Artifact::n_available() const {
    return static_cast<int>(std::count_if(levels.begin(), levels.end(),
                                          [&](const Level& level) { return level.file_bytes <= n_file_bytes; }));
}

uint64_t Artifact::table_bytes() const {
    uint64_t bytes = metadata.size() + codebooks.size() * sizeof(Codebook) + runs.size() * (sizeof(Run) + 65);
    bytes += levels.size() * (sizeof(Level) + model.blocks.size() * sizeof(levels[0].allocation[0]));
    for (const BlockSpec& block : model.blocks) {
        bytes += sizeof(BlockSpec) + block.name.size();
        for (const auto& weight : block.weights) bytes += weight.size() * sizeof(PanelPiece);
        for (const auto& bias : block.row_bias) bytes += bias.size() * sizeof(VectorPiece);
        for (const auto* norm : {&block.norm, &block.post_norm, &block.q_norm, &block.k_norm}) bytes += norm->size() * sizeof(VectorPiece);
        bytes += (block.inv_freq.size() + block.bias.size()) * sizeof(VectorPiece);
        const SsmSpec& ssm = block.ssm;
        for (const auto* pieces : {&ssm.dt, &ssm.dt_bias, &ssm.a, &ssm.d, &ssm.conv[0], &ssm.conv[1], &ssm.conv[2], &ssm.gain}) {
            bytes += pieces->size() * sizeof(VectorPiece);
        }
    }
    return bytes;
}

Artifact read_artifact(int file) {
    struct stat status;
    if (fstat(file, &status) != 0) throw Error{EDGE_IO, std::string("could not stat the file: ") + strerror(errno)};
    if (!S_ISREG(status.st_mode)) throw Error{EDGE_IO, "this is not a regular file"};
    Artifact artifact;
    artifact.n_file_bytes = static_cast<uint64_t>(status.st_size);
    TensorTable tensors;
    {
        const std::string header = read_header(file, artifact.n_file_bytes);
        artifact.data_offset = 8 + header.size();
        const JsonDocument document = parse_json(header, "1.1", "the header");
        const Json& container = document.root();
        const Json& outer = object(container, "__metadata__", "", "1.6");
        artifact.metadata = text(outer, "edge", "__metadata__", "1.6");
        tensors = TensorTable(container);
    }
    const JsonDocument metadata = parse_json(artifact.metadata, "1.6", "`__metadata__.edge`");
    const Json& edge = metadata.root();
    const int major = check_version(edge);
    const size_t n_levels = list(edge, "levels", 1, kMaxLevels, "edge", "6").size();
    artifact.runs = read_runs(edge, tensors.n_data_bytes(), static_cast<int>(n_levels));
    tensors.assign_runs(artifact.runs);
    read_model(edge, tensors, artifact);
    check_known_fields(edge["model"], major);
    read_levels(edge, artifact);
    check_coverage(edge, artifact);
    if (artifact.n_available() == 0) {
        throw Error{EDGE_TRUNCATED, "the file has " + std::to_string(artifact.n_file_bytes) +
                                        " bytes, its smallest level needs " + std::to_string(artifact.levels[0].file_bytes) +
                                        " (rule 6.5)\nhint: copy the file again"};
    }
    return artifact;
}

}  // namespace edge
