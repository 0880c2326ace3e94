#include "session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "text_stream.h"

namespace edge {
namespace {

struct Sizes {
    uint64_t kv_bytes, work_bytes;
};

Sizes measure(const Model& model) {
    Arena kv, work;
    const SessionMemory memory(kv, work, model.weights(), model.demand());
    return {kv.used(), work.used()};
}

}  // namespace

Session::Session(std::shared_ptr<Model> model)
    : model_(std::move(model)),
      kv_arena_(measure(*model_).kv_bytes),
      work_arena_(measure(*model_).work_bytes),
      memory_(kv_arena_, work_arena_, model_->weights(), model_->demand()),
      pool_(model_->demand().n_threads, model_->pin_threads()),
      transformer_(model_->weights(), memory_.cache, memory_.states, memory_.workspace, pool_) {}

void Session::reset() {
    rewind(0);
    cancelled_ = false;
}

void Session::rewind(int32_t n_tokens) {
    if (n_tokens < 0 || n_tokens > n_tokens_) {
        throw ArgumentError("cannot rewind to " + std::to_string(n_tokens) + " tokens, the conversation has " +
                            std::to_string(n_tokens_));
    }
    if (n_tokens < n_tokens_ || n_tokens == 0) has_logits_ = false;
    n_tokens_ = n_tokens;
    if (n_tokens < n_cached_) keep_cached(n_tokens);
}

// Of what the caches hold only the first tokens count. The state of a mixer cannot go back: it is made again from the first
// token when it is needed.
void Session::keep_cached(int32_t n_tokens) { n_cached_ = memory_.states.empty() ? n_tokens : 0; }

void Session::append(std::span<const int32_t> tokens) {
    const int32_t context = model_->demand().context_tokens, vocab_size = model_->weights().vocab_size;
    for (const int32_t token : tokens) {
        if (token >= 0 && token < vocab_size) continue;
        throw ArgumentError("token " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(vocab_size));
    }
    if (tokens.size() > static_cast<size_t>(context - n_tokens_)) {
        throw Error{EDGE_CONTEXT_FULL, std::to_string(tokens.size()) + " tokens do not fit behind " + std::to_string(n_tokens_) +
                                           " in a context of " + std::to_string(context) +
                                           "\nhint: load with a larger context (this model takes up to " +
                                           std::to_string(model_->artifact().model.max_context) + "), or shorten the text"};
    }
    std::copy(tokens.begin(), tokens.end(), memory_.history + n_tokens_);
    n_tokens_ += static_cast<int32_t>(tokens.size());
}

// A cancel ends one call: the one that it met.
void Session::end_cancelled() {
    cancelled_ = false;
    throw Error{EDGE_CANCELLED, "cancelled"};
}

// Pushes what is not cached yet through the model, and leaves the last token's logits in the workspace.
void Session::advance(float* all_logits) {
    const int64_t vocab_size = model_->weights().vocab_size;
    int n = 0;
    while (n_cached_ < n_tokens_) {
        n = std::min(memory_.workspace.n, n_tokens_ - n_cached_);
        has_logits_ = false;
        if (!transformer_.forward(memory_.history + n_cached_, n, n_cached_, cancelled_)) {
            n_tokens_ = n_cached_;
            keep_cached(n_cached_);
            end_cancelled();
        }
        if (all_logits) {
            transformer_.head(0, n, all_logits);
            all_logits += n * vocab_size;
        }
        n_cached_ += n;
    }
    if (n == 0) return;
    if (all_logits) {
        std::memcpy(memory_.workspace.logits, all_logits - vocab_size, static_cast<size_t>(vocab_size) * sizeof(float));
    } else {
        transformer_.head(n - 1, 1, memory_.workspace.logits);
    }
    if (!model_->verifier().wait(cancelled_)) end_cancelled();
    has_logits_ = true;
}

void Session::ready() {
    advance(nullptr);
    if (!has_logits_) throw ArgumentError("there is no text to continue\nhint: feed at least one token first");
}

void Session::feed(std::span<const int32_t> tokens, bool all, float* logits) {
    const size_t vocab_size = static_cast<size_t>(model_->weights().vocab_size);
    const size_t n_logits = logits ? (all ? tokens.size() : 1) * vocab_size : 0;
    try {
        if (all && logits) advance(nullptr);  // a sampled token that waits gets no row
        append(tokens);
        advance(all ? logits : nullptr);
        if (!all && logits) {
            ready();
            std::memcpy(logits, memory_.workspace.logits, vocab_size * sizeof(float));
        }
    } catch (...) {
        std::fill_n(logits, n_logits, 0.0f);  // nothing unverified leaves
        throw;
    }
}

int32_t Session::sample() {
    const size_t vocab_size = static_cast<size_t>(model_->weights().vocab_size);
    return memory_.sampler.sample({memory_.workspace.logits, vocab_size}, {memory_.history, static_cast<size_t>(n_tokens_)});
}

int32_t Session::next() {
    ready();
    const int32_t token = sample();
    append({&token, 1});
    return token;
}

void Session::logprobs(int32_t n_top, edge_logprob* out) {
    const int32_t vocab_size = model_->weights().vocab_size;
    if (n_top < 0 || n_top > vocab_size) {
        throw ArgumentError("n_top is " + std::to_string(n_top) + ", expected 0 to " + std::to_string(vocab_size));
    }
    if (!has_logits_ || n_cached_ + 1 != n_tokens_) {
        throw ArgumentError("no token was sampled from the last logits\nhint: ask right after the token was sampled");
    }
    memory_.sampler.logprobs({memory_.workspace.logits, static_cast<size_t>(vocab_size)}, memory_.history[n_cached_], n_top, out);
}

void Session::generate(std::span<const int32_t> prompt, int32_t max_tokens, std::vector<std::string> stops, const Emit& emit,
                       int32_t& n_generated) {
    n_generated = 0;
    if (max_tokens < 0) throw ArgumentError("max_tokens is " + std::to_string(max_tokens) + ", expected at least 0");
    append(prompt);
    if (max_tokens > 0 && n_tokens_ == model_->demand().context_tokens) {
        throw Error{EDGE_CONTEXT_FULL, "the prompt fills the whole context of " + std::to_string(n_tokens_) +
                                           " tokens\nhint: load with a larger context, or shorten the text"};
    }
    const Tokenizer& tokenizer = model_->tokenizer();
    TextStream text(tokenizer, std::move(stops));
    bool stopped = false;
    while (!stopped && n_generated < max_tokens && n_tokens_ < model_->demand().context_tokens) {
        ready();
        if (cancelled_) end_cancelled();
        const int32_t token = sample();
        if (tokenizer.is_end_token(token)) break;
        append({&token, 1});
        ++n_generated;
        std::string shown;
        stopped = text.push(token, shown);
        if (!shown.empty() && !emit(shown)) return;
    }
    if (stopped) return;
    std::string shown;
    text.finish(shown);
    if (!shown.empty()) emit(shown);
}

}  // namespace edge
