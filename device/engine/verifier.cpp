#include "verifier.h"

#include <algorithm>
#include <chrono>
#include <string_view>

#include "errors.h"
#include "sha256.h"

namespace edge {

Verifier::Verifier(const Artifact& artifact, const Mapping& mapping, edge_verify mode) : mode_(mode) {
    for (const auto& run : mapping.runs()) {
        if (!run->passed) jobs_.push_back({run.get(), artifact.runs[run->index].sha256});
    }
    if (jobs_.empty()) {
        state_ = State::passed;
    } else if (mode == EDGE_VERIFY_LAZY) {
        state_ = State::running;
        thread_ = std::thread([this] { work(); });
    }
}

Verifier::~Verifier() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
}

void Verifier::work() {
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

// Allocates nothing: it runs on a thread of its own, where nobody could be told.
void Verifier::check_run(const Job& job) noexcept {
    constexpr uint64_t kStep = 1 << 20;  // between looks at stop_
    const uint64_t n_bytes = job.run->range.end - job.run->range.begin;
    Sha256 hash;
    for (uint64_t done = 0; done < n_bytes; done += kStep) {
        if (stop_) return;
        hash.update(job.run->data + done, static_cast<size_t>(std::min(kStep, n_bytes - done)));
    }
    const auto found = hash.finish();
    const auto digits = hex_digits(found);
    const bool is_right = std::string_view(digits.data(), digits.size()) == job.sha256;
    if (is_right) {
        job.run->passed = true;
        if (n_passed_.fetch_add(1) + 1 < jobs_.size()) return;
    }
    {
        const std::lock_guard lock(mutex_);
        if (!is_right && !failed_job_) found_ = found, failed_job_ = &job;
        state_ = is_right ? State::passed : State::failed;
    }
    changed_.notify_all();
}

// The mutex is held.
void Verifier::fail() const {
    throw Error{EDGE_BAD_HASH, "run " + std::to_string(failed_job_->run->index) + " of the file has SHA-256 " + hex(found_) +
                                   ", its header says " + failed_job_->sha256 +
                                   " (rule 5.4)\nhint: the file is damaged: copy it again"};
}

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
