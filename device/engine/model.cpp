#include "model.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "bytes.h"
#include "gpu/shared_pages.h"
#include "memory.h"
#include "threads.h"

namespace edge {
namespace {

constexpr int32_t kDefaultContext = 2048;
constexpr int32_t kMaxThreads = 256;
constexpr int32_t kMaxChunk = 4096;

// Of a prompt, or of single tokens, whose backends may be two: which one takes part that is not the CPU. CPU: none does.
edge_backend device_backend(const edge_load_options& options) {
    static_assert(int{EDGE_DECODE_OPENCL} == EDGE_BACKEND_OPENCL && int{EDGE_DECODE_CUDA} == EDGE_BACKEND_CUDA);
    if (options.backend < EDGE_BACKEND_CPU || options.backend > EDGE_BACKEND_CUDA) {
        throw ArgumentError("`backend` is " + std::to_string(options.backend) + ", expected 0 to 3");
    }
    if (options.decode_backend < EDGE_DECODE_SAME || options.decode_backend > EDGE_DECODE_CUDA) {
        throw ArgumentError("`decode_backend` is " + std::to_string(options.decode_backend) + ", expected 0 to 3");
    }
    const auto prefill = static_cast<edge_backend>(options.backend);
    if (options.decode_backend <= EDGE_DECODE_CPU) return prefill;
    const auto decode = static_cast<edge_backend>(options.decode_backend);
    if (prefill == EDGE_BACKEND_CPU || prefill == decode) return decode;
    throw ArgumentError(std::string("prompts on ") + gpu::backend_name(prefill) + " and single tokens on " + gpu::backend_name(decode) +
                        ": one of two different backends must be the CPU\nhint: name `cpu` for one of them, or give one backend only");
}

Backend open_backend(const Artifact& artifact, const edge_load_options& options, bool only_gpu, const std::string& reason) {
    const edge_backend wanted = device_backend(options);
    if (wanted == EDGE_BACKEND_CPU) return {nullptr, reason};
    if (options.adaptive) throw ArgumentError("`adaptive` needs the CPU\nhint: leave it out, or use backend `cpu`");
    gpu::require_supported(artifact);
    return {gpu::open_device(wanted, only_gpu), ""};
}

// On a device that can read what is mapped for the host, all of it is one buffer there.
bool fits_one_buffer(const Artifact& artifact, const gpu::Device& device) {
    const uint64_t most = std::min(device.info().buffer_bytes, gpu::kMostSharedBytes);
    for (int level = 0; level < artifact.n_available(); ++level) {
        if (copied_bytes(artifact, level) > most) return false;
    }
    return true;
}

Demand make_demand(const Artifact& artifact, int file, const edge_load_options& options, const Backend& backend) {
    const int32_t longest = artifact.model.max_context;
    if (options.context_tokens < 0 || options.context_tokens > longest) {
        throw ArgumentError("context is " + std::to_string(options.context_tokens) + " tokens, this model takes up to " +
                            std::to_string(longest));
    }
    if (options.kv_bits != 0 && options.kv_bits != 8 && options.kv_bits != 16) {
        throw ArgumentError("kv_bits is " + std::to_string(options.kv_bits) + ", expected 8 or 16");
    }
    if (options.n_threads < 0 || options.n_threads > kMaxThreads) {
        throw ArgumentError("threads is " + std::to_string(options.n_threads) + ", expected 1 to " + std::to_string(kMaxThreads));
    }
    if (options.chunk_tokens < 0 || options.chunk_tokens > kMaxChunk) {
        throw ArgumentError("chunk is " + std::to_string(options.chunk_tokens) + " tokens, expected 1 to " + std::to_string(kMaxChunk));
    }
    Demand demand;
    demand.context_tokens = options.context_tokens ? options.context_tokens : std::min(longest, kDefaultContext);
    demand.kv_bits = options.kv_bits ? options.kv_bits : 8;
    demand.n_threads = options.n_threads ? options.n_threads : std::min(kMaxThreads, usable_cores());
    demand.chunk_tokens = options.chunk_tokens;
    demand.huge_pages = options.huge_pages != 0;
    if (!backend.device) return demand;
    demand.prefill_on_device = options.backend != EDGE_BACKEND_CPU;
    demand.decode_on_device = options.decode_backend != EDGE_DECODE_CPU;
    if (!demand.on_host()) demand.n_threads = 1, demand.huge_pages = false;
    if (!fits_one_buffer(artifact, *backend.device)) return demand;
    if (!demand.huge_pages && begin_at_pages(artifact, page_size())) {
        demand.shares_weights = gpu::can_share_file(*backend.device, file, artifact.data_offset);
    }
    if (!demand.shares_weights && demand.on_host() && gpu::can_share_copies(*backend.device)) {
        demand.shares_weights = demand.huge_pages = true;
    }
    return demand;
}

// A GPU with memory of its own does not say how much of it is free.
MemoryBudget measure_device(const gpu::Device& device) {
    const uint64_t all = device.info().memory_bytes, held = device.allocated_bytes();
    const uint64_t reserve = std::max<uint64_t>(64 << 20, all / 10), room = all - std::min(all, held);
    return {room - std::min(room, reserve), device.info().name + " has " + mebibytes(all) + ", " + mebibytes(held) +
                                                " are in use here, " + mebibytes(reserve) + " are kept in reserve"};
}

// By what automatic selection grants, on each side that takes part.
Choice choose_by_memory(const Artifact& artifact, const Demand& demand, const Backend& backend) {
    const bool is_apart = backend.device && !backend.device->info().shares_memory;
    if (is_apart && !demand.on_host()) {
        const MemoryBudget there = measure_device(*backend.device);
        return choose_by_budget(artifact, demand, there.bytes, there.reason);
    }
    const MemoryBudget here = measure_memory();
    if (!is_apart) return choose_by_budget(artifact, demand, here.bytes, here.reason);
    const MemoryBudget there = measure_device(*backend.device);
    const Choice by_host = choose_by_budget(artifact, host_part(demand), here.bytes, here.reason);
    const Choice by_device = choose_by_budget(artifact, device_part(demand), there.bytes, there.reason);
    return by_host.level < by_device.level ? by_host : by_device;
}

Choice choose_level(const Artifact& artifact, const Demand& demand, const edge_load_options& options, const Backend& backend) {
    choose_by_level(artifact, options.min_level);  // refuses a file that does not hold it
    switch (options.choose) {
        case 0: return choose_by_memory(artifact, demand, backend);
        case 1: return choose_by_rate(artifact, options.rate);
        case 2: return choose_by_budget(artifact, demand, options.budget_bytes, "the budget as given");
        case 3: return choose_by_level(artifact, options.level);
        default: throw ArgumentError("`choose` is " + std::to_string(options.choose) + ", expected 0 to 3");
    }
}

// A driver may promise more than it has, so what one session takes is counted before anything is copied.
void require_room(const Artifact& artifact, const Choice& choice, const Demand& demand, const gpu::Device& device) {
    const Needs needs = level_needs(artifact, choice.level, demand);
    const gpu::DeviceInfo& info = device.info();
    const uint64_t held = device.allocated_bytes(), room = info.memory_bytes - std::min(info.memory_bytes, held);
    if (needs.device_bytes <= room && needs.buffer_bytes <= info.buffer_bytes) return;
    throw Error{EDGE_OUT_OF_MEMORY,
                "`" + artifact.model.name + "` needs " + mebibytes(needs.device_bytes) + " on " + info.name + " at level " +
                    std::to_string(choice.level) + " with context " + std::to_string(demand.context_tokens) + ", " +
                    mebibytes(needs.buffer_bytes) + " of it in one piece; there are " + mebibytes(info.memory_bytes) + ", of which " +
                    mebibytes(held) + " are in use here, in pieces of up to " + mebibytes(info.buffer_bytes) +
                    "\nhint: choose a smaller level, lower the context, or use backend `cpu`"};
}

Choice choose(const Artifact& artifact, const Demand& demand, const edge_load_options& options, const Backend& backend) {
    Choice choice = choose_level(artifact, demand, options, backend);
    if (backend.device) require_room(artifact, choice, demand, *backend.device);
    return choice;
}

edge_verify checked_verify(int32_t verify) {
    if (verify < EDGE_VERIFY_LAZY || verify > EDGE_VERIFY_OFF) {
        throw ArgumentError("`verify` is " + std::to_string(verify) + ", expected 0 (lazy), 1 (eager) or 2 (off)");
    }
    return static_cast<edge_verify>(verify);
}

template <typename T>
std::span<const T> view(const Mapping& mapping, const Range& range) {
    if (range.begin == range.end) return {};
    return {reinterpret_cast<const T*>(mapping.at(range.begin)), static_cast<size_t>((range.end - range.begin) / sizeof(T))};
}

TokenizerTables tokenizer_tables(const Mapping& mapping, const Artifact& artifact) {
    TokenizerTables tables;
    tables.bytes = view<uint8_t>(mapping, artifact.token_bytes);
    tables.offsets = view<uint32_t>(mapping, artifact.token_offsets);
    tables.kinds = view<uint8_t>(mapping, artifact.token_kinds);
    tables.sorted = view<uint32_t>(mapping, artifact.token_sorted);
    tables.merges = view<Merge>(mapping, artifact.token_merges);
    return tables;
}

}  // namespace

Model::File::File(const std::string& path) : number(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (number < 0) {
        throw Error{errno == ENOENT ? EDGE_NOT_FOUND : EDGE_IO, "cannot open `" + path + "`: " + strerror(errno)};
    }
}

Model::File::~File() { close(number); }

Model::Model(const std::string& path, const edge_load_options& options, bool only_gpu, const std::string& reason)
    : file_(path),
      artifact_(read_artifact(file_.number)),
      backend_(open_backend(artifact_, options, only_gpu, reason)),
      demand_(make_demand(artifact_, file_.number, options, backend_)),
      pin_threads_(options.pin_threads != 0),
      placement_(demand_.on_host() ? Placement{options.lock_pages != 0, options.prefault != 0, demand_.huge_pages, demand_.shares_weights}
                                   : Placement{.shared = demand_.shares_weights, .only_device = true}),
      verify_(checked_verify(options.verify)),
      passed_(artifact_.runs.size()),
      stamp_(stamp()),
      level_(std::make_shared<MappedLevel>(file_.number, artifact_, choose(artifact_, demand_, options, backend_), placement_,
                                           verify_, passed_, nullptr, backend_.device)),
      wanted_(level_->choice.level),
      tables_(file_.number, artifact_, kAllLevels, Placement{}, passed_, placement_.shared ? nullptr : &level_->mapping),
      tokenizer_(tokenizer_tables(tables_, artifact_), artifact_.tokenizer) {
    const auto jinja = view<char>(tables_, artifact_.chat_template);
    chat_template_ = {jinja.data(), jinja.size()};
    tables_.require_whole();
    level_->mapping.require_whole();
    if (verify_ == EDGE_VERIFY_EAGER) level_->verifier.check();
    if (options.adaptive == 0) return;
    monitor_ = std::make_unique<PressureMonitor>(PressureMonitor::Levels{
        all_needs(), [this] { return level()->choice.level; }, [this] { return wanted_.load(); },
        [this](int wanted, const std::string& why) { give_way(wanted, why); }});
}

// Of each level that the file holds, with one session.
std::vector<uint64_t> Model::all_needs() const {
    std::vector<uint64_t> found;
    for (int k = 0; k < artifact_.n_available(); ++k) found.push_back(level_needs(artifact_, k, demand_).total_bytes);
    return found;
}

Model::Current Model::current() const {
    const std::lock_guard lock(current_mutex_);
    return {level_, n_changes_, recompute_};
}

Model::Stamp Model::stamp() const {
    struct stat status;
    if (fstat(file_.number, &status) != 0) throw Error{EDGE_IO, std::string("could not stat the file: ") + strerror(errno)};
    return {status.st_size, status.st_ctim.tv_sec, status.st_ctim.tv_nsec};
}

// The file may have been cut since its header was read. When it was written to, what passed before counts no more.
void Model::look_at_file(const Level& level) {
    const Stamp now = stamp();
    if (static_cast<uint64_t>(now.n_bytes) < level.file_bytes) {
        throw Error{EDGE_TRUNCATED, "the level needs a file of " + std::to_string(level.file_bytes) + " bytes, this one has " +
                                        std::to_string(now.n_bytes) + " by now\nhint: copy the file again, and load it anew"};
    }
    if (now == stamp_) return;
    for (std::atomic<bool>& passed : passed_) passed = false;
    stamp_ = now;
}

void Model::set_level(int level, edge_recompute recompute) {
    const std::lock_guard one(resizing_);
    change(choose_by_level(artifact_, level), placement_, recompute);
    wanted_ = level;
}

// To a level that nobody wants for itself, and that must not be above the one that somebody wants. What a smaller level needs
// and a larger one lacks is mapped only, not locked or copied, unless a device reads the copy: pages that the system can take back
// before it kills.
void Model::give_way(int level, const std::string& why) {
    const std::lock_guard one(resizing_);
    const Choice choice = choose_by_level(artifact_, std::min(level, wanted_.load()), why);
    const bool is_smaller = choice.level < this->level()->choice.level;
    const Placement plain{.huge_pages = placement_.shared && placement_.huge_pages, .shared = placement_.shared,
                          .only_device = placement_.only_device};
    change(choice, is_smaller ? plain : placement_, EDGE_RECOMPUTE_NONE);
}

void Model::trim(edge_trim severity) {
    const int now = level()->choice.level;
    if (severity == EDGE_TRIM_NONE) return give_way(wanted_, "memory is there again");
    const std::vector<uint64_t> needs = all_needs();
    const uint64_t own = needs[static_cast<size_t>(now)], least = std::min(own, needs[0]);
    const uint64_t freed = severity == EDGE_TRIM_MODERATE ? own / 8 : severity == EDGE_TRIM_LOW ? (own - least) / 2 : own - least;
    int level = now;
    while (level > 0 && needs[static_cast<size_t>(level)] > own - freed) --level;
    give_way(level, "the app was told that memory is short");
}

// The caller holds `resizing_`.
void Model::change(const Choice& choice, const Placement& placement, edge_recompute recompute) {
    const int level = choice.level;
    std::shared_ptr<MappedLevel> next = this->level();  // and what was current, once they are exchanged
    if (next->choice.level != level) {
        look_at_file(artifact_.levels[static_cast<size_t>(level)]);
        const edge_verify verify = verify_ == EDGE_VERIFY_OFF ? EDGE_VERIFY_OFF : EDGE_VERIFY_LAZY;
        next = std::make_shared<MappedLevel>(file_.number, artifact_, choice, placement, verify, passed_, next.get(), backend_.device);
        next->mapping.require_whole();
        next->verifier.wait(false);  // in this thread, too: users still run the level before
    } else if (recompute == EDGE_RECOMPUTE_NONE) {
        return;
    }
    {
        const std::lock_guard lock(current_mutex_);
        level_.swap(next);
        recompute_ = recompute;
        ++n_changes_;
    }
    const std::lock_guard lock(users_mutex_);
    for (LevelUser* user : users_) user->level_changed();
}

void Model::join(LevelUser& user) {
    const std::lock_guard lock(users_mutex_);
    users_.push_back(&user);
}

void Model::leave(LevelUser& user) {
    const std::lock_guard lock(users_mutex_);
    users_.erase(std::find(users_.begin(), users_.end(), &user));
}

Needs Model::needs(int level, const Demand& demand) const {
    if (level < 0 || level >= artifact_.n_levels()) choose_by_level(artifact_, level);
    return level_needs(artifact_, level, demand);
}

std::shared_ptr<Model> load_model(const std::string& path, const edge_load_options& options) {
    if (device_backend(options) != EDGE_BACKEND_AUTO) return std::make_shared<Model>(path, options);
    edge_load_options own = options;
    const auto on_cpu = [&](const std::string& why) {
        own.backend = EDGE_BACKEND_CPU;
        return std::make_shared<Model>(path, own, false, why);
    };
    if (options.adaptive) return on_cpu("`adaptive` needs the CPU");
    std::string reason;
    for (const edge_backend backend : {EDGE_BACKEND_CUDA, EDGE_BACKEND_OPENCL}) {
        own.backend = backend;
        try {
            return std::make_shared<Model>(path, own, true);
        } catch (const Error& error) {
            const bool is_of_machine = error.status >= EDGE_NOT_FOUND || error.status == EDGE_UNSUPPORTED;
            if (!is_of_machine) throw;
            const std::string why = error.message.substr(0, error.message.find('\n'));
            reason += (reason.empty() ? "" : "; ") + std::string(gpu::backend_name(backend)) + ": " + why;
        }
    }
    return on_cpu(reason);
}

}  // namespace edge
