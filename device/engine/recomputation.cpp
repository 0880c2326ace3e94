#include "recomputation.h"

#include <algorithm>
#include <utility>

#include "errors.h"

namespace edge {

Recomputation::Recomputation(std::shared_ptr<MappedLevel> level, const Demand& demand, std::span<const int32_t> tokens)
    : level_(std::make_unique<CpuLevel>(std::move(level), demand, alone_)) {
    tokens_.reserve(static_cast<size_t>(demand.context_tokens));
    go_on(tokens);
}

Recomputation::~Recomputation() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
}

void Recomputation::go_on(std::span<const int32_t> tokens) {
    if (thread_.joinable()) thread_.join();
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    done_ = false;
    thread_ = std::thread(&Recomputation::run, this);
}

void Recomputation::run() noexcept {
    while (n_computed_ < n_tokens()) {
        const int n = std::min(level_->memory.workspace.n, n_tokens() - n_computed_);
        if (!level_->transformer.forward(tokens_.data() + n_computed_, n, n_computed_, stop_)) return;
        n_computed_ += n;
    }
    done_ = true;
}

std::unique_ptr<CpuLevel> Recomputation::take(ThreadPool& pool) {
    thread_.join();
    try {
        level_->level->mapping.require_whole();
    } catch (const Error&) {
        return nullptr;
    }
    level_->use(pool);
    return std::move(level_);
}

}  // namespace edge
