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
    constexpr uint64_t kStep = 1 << 20;  // between looks at stop_
    for (const Job& job : jobs_) {
        Sha256 hash;
        for (uint64_t done = 0; done < job.n_bytes; done += kStep) {
            if (stop_) return;
            hash.update(job.data + done, static_cast<size_t>(std::min(kStep, job.n_bytes - done)));
        }
        const std::string found = hex(hash.finish());
        if (found != job.sha256) {
            return finish(State::failed, "run " + std::to_string(job.run) + " of the file has SHA-256 " + found +
                                             ", its header says " + job.sha256 +
                                             " (rule 5.4)\nhint: the file is damaged: copy it again");
        }
    }
    finish(State::passed, "");
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
    std::unique_lock lock(mutex_);
    while (state_ == State::running) {
        if (cancelled) return false;
        changed_.wait_for(lock, std::chrono::milliseconds(20));
    }
    if (state_ == State::failed) fail();
    return true;
}

}  // namespace edge
