// One conversation: its tokens, its key/value cache, its sampler and its threads.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model.h"
#include "session_memory.h"
#include "threads.h"
#include "transformer.h"

namespace edge {

class Session {
public:
    explicit Session(std::shared_ptr<Model> model);

    // The conversation's tokens; the last one may wait to be pushed through the model until its logits are needed.
    int32_t n_tokens() const { return n_tokens_; }
    void reset();  // forgets the conversation, and a cancel that met no call
    void rewind(int32_t n_tokens);  // keeps the first n_tokens; logits are there again after the next feed

    // Appends tokens. `logits` (may be nullptr): (n, vocab_size) if `all`, else (vocab_size) of the last token.
    void feed(std::span<const int32_t> tokens, bool all, float* logits);
    void set_sampling(const edge_sampling& sampling) { memory_.sampler.set(sampling); }
    int32_t next();  // samples a token and appends it
    void logprobs(int32_t n_top, edge_logprob* out);  // (1 + n_top): of the token that next() gave, and of the likeliest

    void time_ops(bool on) { transformer_.time_ops(on); }
    const OpTimes& op_times() const { return transformer_.op_times(); }

    using Emit = std::function<bool(std::string_view)>;  // false: stop
    void generate(std::span<const int32_t> prompt, int32_t max_tokens, std::vector<std::string> stops, const Emit& emit,
                  int32_t& n_generated);

    void cancel() { cancelled_ = true; }  // from any thread: ends the running call, or else the next one that computes

private:
    void append(std::span<const int32_t> tokens);
    void advance(float* all_logits);
    void ready();
    [[noreturn]] void end_cancelled();
    int32_t sample();

    std::shared_ptr<Model> model_;
    Arena kv_arena_, work_arena_;
    SessionMemory memory_;
    ThreadPool pool_;
    Transformer transformer_;
    int32_t n_tokens_ = 0;    // in history
    int32_t n_cached_ = 0;    // of them in the key/value cache
    bool has_logits_ = false; // of token n_cached_ - 1, in the workspace
    std::atomic<bool> cancelled_{false};
};

}  // namespace edge
