// Checks the mapped runs against the SHA-256 of the header, in the background or at once.
#pragma once
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "artifact.h"
#include "mapping.h"

namespace edge {

class Verifier {
public:
    // Of the runs that have not passed yet; the mapping must outlive the verifier. LAZY starts a thread; EAGER and OFF start
    // nothing.
    Verifier(const Artifact& artifact, const Mapping& mapping, edge_verify mode);
    ~Verifier();
    Verifier(const Verifier&) = delete;
    Verifier& operator=(const Verifier&) = delete;

    // Checks all runs, if that has not happened, and waits for the result. Throws EDGE_BAD_HASH.
    void check();

    // What results wait for; a caller that would wait hashes runs itself. True at once when verification is off or has passed,
    // false when `cancelled` becomes true while waiting. Throws EDGE_BAD_HASH.
    bool wait(const std::atomic<bool>& cancelled);

private:
    enum class State { idle, running, passed, failed };
    struct Job {
        MappedRun* run;
        std::string sha256;
    };
    void work();
    bool take_run();
    void check_run(const Job& job) noexcept;
    [[noreturn]] void fail() const;

    std::vector<Job> jobs_;
    edge_verify mode_;
    std::atomic<State> state_{State::idle};
    std::atomic<size_t> next_job_{0};  // the first that no thread took
    std::atomic<size_t> n_passed_{0};
    std::atomic<bool> stop_{false};
    const Job* failed_job_ = nullptr;
    std::array<uint8_t, 32> found_{};  // its digest
    std::mutex mutex_;
    std::condition_variable changed_;
    std::thread thread_;
};

}  // namespace edge
