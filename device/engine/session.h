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
#include "recomputation.h"
#include "session_level.h"
#include "session_memory.h"
#include "threads.h"

namespace edge {

// A step (a chunk of a prompt, or one token) runs at one level. Between two steps a session moves to the level that the model
// has by then, and takes along what both levels keep of its keys, values and states.
class Session : private LevelUser {
public:
    explicit Session(std::shared_ptr<Model> model);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // The conversation's tokens; the last one may wait to be pushed through the model until its logits are needed.
    int32_t n_tokens() const { return n_tokens_; }
    // All of them, or 0 when what is cached was not made by the model's level alone.
    int32_t n_exact() const;
    void reset();  // forgets the conversation, and a cancel that met no call
    void rewind(int32_t n_tokens);  // keeps the first n_tokens; logits are there again after the next feed

    // Appends tokens. `logits` (may be nullptr): (n, vocab_size) if `all`, else (vocab_size) of the last token.
    void feed(std::span<const int32_t> tokens, bool all, float* logits);
    void set_sampling(const edge_sampling& sampling) { conversation_.sampler.set(sampling); }
    int32_t next();  // samples a token and appends it
    void logprobs(int32_t n_top, edge_logprob* out);  // (1 + n_top): of the token that next() gave, and of the likeliest

    void time_ops(bool on);
    OpTimes op_times() const;

    using Emit = std::function<bool(std::string_view)>;  // false: stop
    void generate(std::span<const int32_t> prompt, int32_t max_tokens, std::vector<std::string> stops, const Emit& emit,
                  int32_t& n_generated);

    void cancel() { cancelled_ = true; }  // from any thread: ends the running call, or else the next one that computes

private:
    enum class Use { none, call, move };

    // Keeps other threads away while a call runs. Throws EDGE_BAD_ARGUMENT when another call does.
    class Call {
    public:
        explicit Call(const Session& session);
        ~Call();
        Call(const Call&) = delete;
        Call& operator=(const Call&) = delete;

    private:
        Session& session_;
    };

    void level_changed() noexcept override;
    void follow();
    void compute_again() noexcept;
    bool may_take_again() const;
    void take_again();
    bool is_sound();
    void set_cached(int32_t n_tokens);
    void keep(int32_t n_tokens);
    void keep_cached(int32_t n_tokens);
    void append(std::span<const int32_t> tokens);
    bool forward(int n);
    void advance(float* rows, int32_t first);
    void ready();
    [[noreturn]] void end_cancelled();
    void fetch_logits();
    void require_whole() const;
    int32_t sample();

    std::shared_ptr<Model> model_;
    Arena arena_;
    Conversation conversation_;
    ThreadPool pool_;
    std::unique_ptr<SessionLevel> here_;
    std::atomic<uint64_t> n_changes_{0};  // of the model's level, that were followed
    mutable std::atomic<Use> use_{Use::none};
    int32_t n_tokens_ = 0;    // in history
    int32_t n_seen_ = 0;      // of them were pushed through the model at least once
    int32_t n_cached_ = 0;    // of them in the key/value cache
    int32_t n_logits_ = 0;    // the logits are those of token n_logits_ - 1; 0: there are none
    bool logits_are_here_ = true;  // not only on a device
    bool is_mixed_ = false;   // what is cached was made by several levels
    std::atomic<bool> cancelled_{false};
    std::unique_ptr<Recomputation> again_;  // of the first n_tokens of what is cached; nullptr: nobody asked for it
};

}  // namespace edge
