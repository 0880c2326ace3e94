#include "verifier.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "errors.h"
#include "sha256.h"

namespace edge {

Verifier::Verifier(const Artifact& artifact, const Mapping& mapping, int level, edge_verify mode) : mode_(mode) {
    for (size_t i = 0; i < artifact.runs.size(); ++i) {
        const Run& run = artifact.runs[i];
        if (run.used_by(level) && run.end > run.begin) {
            jobs_.push_back({mapping.at(run.begin), run.end - run.begin, i, run.sha256});
        }
    }
    if (mode == EDGE_VERIFY_LAZY) {
        state_ = State::running;
        thread_ = std::thread([this] { work(); });
    }
}

Verifier::~Verifier() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
}

void Verifier::work() {
    if (jobs_.empty()) finish(State::passed, "");
    while (take_run()) continue;
}

// Any number of threads may take runs; a run is one chain of hashing and stays with its thread. False when none is left.
bool Verifier::take_run() {
    if (stop_ || state_ != State::running) return false;
    const size_t index = next_job_.fetch_add(1);
    if (index >= jobs_.size()) return false;
    check_run(jobs_[index]);
    return true;
}

void Verifier::check_run(const Job& job) {
    constexpr uint64_t kStep = 1 << 20;  // between looks at stop_
    Sha256 hash;
    for (uint64_t done = 0; done < job.n_bytes; done += kStep) {
        if (stop_) return;
        hash.update(job.data + done, static_cast<size_t>(std::min(kStep, job.n_bytes - done)));
    }
    const std::string found = hex(hash.finish());
    if (found != job.sha256) {
        finish(State::failed, "run " + std::to_string(job.run) + " of the file has SHA-256 " + found + ", its header says " +
                                  job.sha256 + " (rule 5.4)\nhint: the file is damaged: copy it again");
    } else if (n_passed_.fetch_add(1) + 1 == jobs_.size()) {
        finish(State::passed, "");
    }
}

void Verifier::finish(State state, std::string failure) {
    {
        const std::lock_guard lock(mutex_);
        failure_ = std::move(failure);
        state_ = state;
    }
    changed_.notify_all();
}

void Verifier::fail() const { throw Error{EDGE_BAD_HASH, failure_}; }

void Verifier::check() {
    State idle = State::idle;
    if (state_.compare_exchange_strong(idle, State::running)) work();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return state_ == State::passed || state_ == State::failed; });
    if (state_ == State::failed) fail();
}

bool Verifier::wait(const std::atomic<bool>& cancelled) {
    if (state_ == State::passed || (mode_ == EDGE_VERIFY_OFF && state_ != State::failed)) return true;
    while (!cancelled && take_run()) continue;
    std::unique_lock lock(mutex_);
    while (state_ == State::running) {
        if (cancelled) return false;
        changed_.wait_for(lock, std::chrono::milliseconds(20));
    }
    if (state_ == State::failed) fail();
    return true;
}

}  // namespace edge
