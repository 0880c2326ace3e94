// An artifact, the level of it that runs now, and the sessions that run it.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "artifact.h"
#include "gpu/device.h"
#include "mapped_level.h"
#include "mapping.h"
#include "pressure_monitor.h"
#include "select.h"
#include "tokenizer.h"

namespace edge {

// Who runs a model's level and must be told of another one. Called from any thread.
class LevelUser {
public:
    virtual void level_changed() noexcept = 0;

protected:
    ~LevelUser() = default;
};

// What a model runs on.
struct Backend {
    std::shared_ptr<gpu::Device> device;  // nullptr: the CPU alone
    std::string reason;                   // why there is none, when the choice was automatic
};

class Model {
public:
    // For backends other than AUTO, which load_model resolves. `only_gpu`: a processor that runs OpenCL is not taken; `reason`: why
    // the choice fell on the CPU. Throws Error. Nothing is mapped before the header has passed and a level is chosen.
    Model(const std::string& path, const edge_load_options& options, bool only_gpu = false, const std::string& reason = "");

    const Artifact& artifact() const { return artifact_; }
    const Demand& demand() const { return demand_; }
    const Backend& backend() const { return backend_; }
    const Tokenizer& tokenizer() const { return tokenizer_; }
    const Mapping& tables() const { return tables_; }
    std::string_view chat_template() const { return chat_template_; }  // empty: none
    int32_t vocab_size() const { return artifact_.model.vocab_size; }
    bool pin_threads() const { return pin_threads_; }
    Needs needs(int level, const Demand& demand) const;

    struct Current {
        std::shared_ptr<MappedLevel> level;
        uint64_t n_changes = 0;  // so far
        edge_recompute recompute = EDGE_RECOMPUTE_NONE;  // of conversations, at this level
    };
    // What steps begin with now; a step that runs may be at the level before.
    Current current() const;
    std::shared_ptr<MappedLevel> level() const { return current().level; }
    uint64_t n_changes() const { return n_changes_; }

    // Maps and checks a level, then lets all users know. Throws Error, and then the level stays what it was.
    void set_level(int level, edge_recompute recompute);
    void trim(edge_trim severity);

    void join(LevelUser& user);
    void leave(LevelUser& user);

private:
    struct File {
        explicit File(const std::string& path);
        ~File();
        File(const File&) = delete;
        File& operator=(const File&) = delete;
        int number;
    };
    struct Stamp {  // when the file was changed last
        int64_t n_bytes, seconds, nanoseconds;
        bool operator==(const Stamp&) const = default;
    };
    Stamp stamp() const;
    void change(const Choice& choice, const Placement& placement, edge_recompute recompute);
    void give_way(int level, const std::string& why);
    std::vector<uint64_t> all_needs() const;
    void look_at_file(const Level& level);

    const File file_;  // stays open: a level that comes later is the same file's, whatever its name means by then
    const Artifact artifact_;
    const Backend backend_;
    const Demand demand_;
    const bool pin_threads_;
    const Placement placement_;
    const edge_verify verify_;

    std::vector<std::atomic<bool>> passed_;  // by run: its hash was right, and nothing was written to the file since

    std::mutex resizing_;              // one change at a time; of the stamp, too
    Stamp stamp_;
    mutable std::mutex current_mutex_; // of the next three; held for moments
    std::shared_ptr<MappedLevel> level_;
    edge_recompute recompute_ = EDGE_RECOMPUTE_NONE;
    std::atomic<uint64_t> n_changes_{0};

    std::atomic<int> wanted_;  // the level that was loaded or set; what memory takes from it comes back

    std::mutex users_mutex_;
    std::vector<LevelUser*> users_;

    const Mapping tables_;  // of the tokenizer, in runs that all levels use: a level that is shared with a device takes its own along
    Tokenizer tokenizer_;
    std::string_view chat_template_;
    std::unique_ptr<PressureMonitor> monitor_;  // nullptr: nobody asked for it
};

// With AUTO: on the first GPU that can run it and has the memory, else on the CPU. Throws Error.
std::shared_ptr<Model> load_model(const std::string& path, const edge_load_options& options);

}  // namespace edge
