#include "session.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "text_stream.h"

namespace edge {
namespace {

constexpr int32_t kShortStep = 16;  // tokens that go through a model in hardly more time than one

uint64_t conversation_bytes(const Model& model) {
    Arena measuring;
    const Conversation conversation(measuring, model.vocab_size(), model.demand().context_tokens);
    return measuring.used();
}

}  // namespace

Session::Session(std::shared_ptr<Model> model)
    : model_(std::move(model)),
      arena_(conversation_bytes(*model_)),
      conversation_(arena_, model_->vocab_size(), model_->demand().context_tokens),
      pool_(model_->demand().n_threads, model_->pin_threads()) {
    const Model::Current now = model_->current();
    here_ = open_level(now.level, model_->demand(), pool_);
    n_changes_ = now.n_changes;
    model_->join(*this);
    level_changed();  // what changed since
}

Session::~Session() { model_->leave(*this); }

Session::Call::Call(const Session& session) : session_(const_cast<Session&>(session)) {
    for (Use found = Use::none; !session_.use_.compare_exchange_strong(found, Use::call); found = Use::none) {
        if (found == Use::call) {
            throw ArgumentError("this session is in use by another call\nhint: open one session per thread");
        }
        session_.use_.wait(Use::move);
    }
}

Session::Call::~Call() {
    session_.use_ = Use::none;
    session_.level_changed();  // during the last step
}

// A session that computes follows before its next step; one that rests is moved here, whoever's thread this is, so that the
// memory of the level before is free again. A change that comes meanwhile is seen by the next round.
void Session::level_changed() noexcept {
    while (model_->n_changes() != n_changes_) {
        Use found = Use::none;
        if (!use_.compare_exchange_strong(found, Use::move)) return;
        bool followed = true;
        try {
            follow();
        } catch (...) {
            followed = false;  // for lack of memory: the next step tries again, and tells
        }
        use_ = Use::none;
        use_.notify_all();
        if (!followed) return;
    }
}

// Moves to the level that the model has now. Throws for lack of memory; then the session stays where it is.
void Session::follow() {
    const Model::Current now = model_->current();
    const bool same_size = now.level->choice.level == here_->level->choice.level;
    again_.reset();
    const bool is_other = !same_size || is_mixed_;
    if (now.level != here_->level) fetch_logits();
    const bool was_sound = is_sound();
    if (!was_sound) n_logits_ = 0;
    const bool again = (now.recompute == EDGE_RECOMPUTE_NEXT && is_other) || !was_sound || (now.level != here_->level && !here_->can_move());
    if (now.level != here_->level) here_ = here_->move_to(now.level, again ? 0 : n_cached_);
    if (again) set_cached(0);
    if (n_cached_ > 0 && !same_size) is_mixed_ = true;
    n_changes_ = now.n_changes;
    if (now.recompute == EDGE_RECOMPUTE_BACKGROUND && is_mixed_) compute_again();
}

// Gives the thread that computes again what it lacks. Where there is no memory for it the conversation stays as it is.
void Session::compute_again() noexcept {
    const int32_t n = again_ ? again_->n_tokens() : 0;
    const std::span tokens(conversation_.history + n, static_cast<size_t>(n_cached_ - n));
    try {
        if (again_) {
            again_->go_on(tokens);
        } else {
            again_ = std::make_unique<Recomputation>(here_->level, model_->demand(), tokens);
        }
    } catch (...) {
        again_.reset();
    }
}

// What was computed again takes the place of what was taken along, once no more than a short step is missing.
bool Session::may_take_again() const { return again_ && again_->is_done() && n_cached_ - again_->n_tokens() <= kShortStep; }

void Session::take_again() {
    if (!again_ || !again_->is_done()) return;
    if (!may_take_again()) return compute_again();
    if (std::unique_ptr<CpuLevel> level = again_->take(pool_)) {
        level->transformer.continue_times(static_cast<const CpuLevel&>(*here_).transformer);
        here_ = std::move(level);
        n_cached_ = again_->n_tokens();
        is_mixed_ = false;
    }
    again_.reset();
}

// Whether what is cached comes from runs that passed their check. Weights that are damaged left nothing to take along.
bool Session::is_sound() {
    if (n_cached_ == 0) return true;
    try {
        here_->level->mapping.require_whole();
        return here_->level->verifier.wait(cancelled_);
    } catch (const Error&) {
        return false;
    }
}

int32_t Session::n_exact() const {
    const Call call(*this);
    const bool is_other = (is_mixed_ && !may_take_again()) || n_changes_ != model_->n_changes();
    return is_other && n_cached_ > 0 ? 0 : n_tokens_;
}

void Session::reset() {
    const Call call(*this);
    keep(0);
    cancelled_ = false;
}

void Session::rewind(int32_t n_tokens) {
    const Call call(*this);
    keep(n_tokens);
}

void Session::keep(int32_t n_tokens) {
    if (n_tokens < 0 || n_tokens > n_tokens_) {
        throw ArgumentError("cannot rewind to " + std::to_string(n_tokens) + " tokens, the conversation has " +
                            std::to_string(n_tokens_));
    }
    if (n_tokens < n_tokens_) n_logits_ = 0;
    n_tokens_ = n_tokens;
    n_seen_ = std::min(n_seen_, n_tokens);
    if (n_tokens < n_cached_) keep_cached(n_tokens);
}

void Session::set_cached(int32_t n_tokens) {
    n_cached_ = n_tokens;
    if (n_tokens == 0) is_mixed_ = false;
    if (again_ && n_tokens < again_->n_tokens()) again_.reset();
}

// Of what the caches hold only the first tokens count. The state of a mixer cannot go back: it is made again from the first
// token when it is needed.
void Session::keep_cached(int32_t n_tokens) { set_cached(here_->can_go_back() ? n_tokens : 0); }

void Session::append(std::span<const int32_t> tokens) {
    const int32_t context = model_->demand().context_tokens, vocab_size = model_->vocab_size();
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
    std::copy(tokens.begin(), tokens.end(), conversation_.history + n_tokens_);
    n_tokens_ += static_cast<int32_t>(tokens.size());
}

// A cancel ends one call: the one that it met.
void Session::end_cancelled() {
    cancelled_ = false;
    throw Error{EDGE_CANCELLED, "cancelled"};
}

// The next n tokens. A device that fails may have advanced some states: what cannot go back is computed again then.
bool Session::forward(int n) {
    try {
        return here_->forward(conversation_.history + n_cached_, n, n_cached_, cancelled_);
    } catch (...) {
        keep_cached(n_cached_);
        throw;
    }
}

// Pushes what is not cached yet through the model, and leaves the last token's logits in the conversation. `rows` (may be
// nullptr) gets those of the tokens from `first` on; what a move made uncached before it is only computed again.
void Session::advance(float* rows, int32_t first) {
    const int64_t vocab_size = model_->vocab_size();
    int n = 0;
    while (n_cached_ < n_tokens_) {
        if (model_->n_changes() != n_changes_) follow();
        take_again();
        const bool wanted = rows && n_cached_ >= first;
        n = std::min(here_->chunk_tokens(), (rows && !wanted ? first : n_tokens_) - n_cached_);
        n_logits_ = 0;
        if (!forward(n)) {
            n_tokens_ = n_seen_;
            keep_cached(n_cached_);
            end_cancelled();
        }
        if (wanted) here_->head(0, n, rows + (n_cached_ - first) * vocab_size);
        n_cached_ += n;
        n_seen_ = std::max(n_seen_, n_cached_);
    }
    if (n == 0) return;
    if (rows) {
        std::memcpy(conversation_.logits, rows + (n_tokens_ - 1 - first) * vocab_size,
                    static_cast<size_t>(vocab_size) * sizeof(float));
        logits_are_here_ = true;
    } else {
        logits_are_here_ = here_->last_head(n - 1, conversation_.logits);
    }
    require_whole();
    if (!here_->level->verifier.wait(cancelled_)) end_cancelled();
    n_logits_ = n_tokens_;
}

void Session::ready() {
    if (n_logits_ != n_tokens_) advance(nullptr, 0);
    if (n_logits_ == 0) throw ArgumentError("there is no text to continue\nhint: feed at least one token first");
}

void Session::feed(std::span<const int32_t> tokens, bool all, float* logits) {
    const size_t vocab_size = static_cast<size_t>(model_->vocab_size());
    const size_t n_logits = logits ? (all ? tokens.size() : 1) * vocab_size : 0;
    try {
        const Call call(*this);
        if (all && logits) advance(nullptr, 0);  // a sampled token that waits gets no row
        const int32_t first = n_tokens_;
        append(tokens);
        advance(all ? logits : nullptr, first);
        if (!all && logits) {
            ready();
            fetch_logits();
            require_whole();
            std::memcpy(logits, conversation_.logits, vocab_size * sizeof(float));
        }
    } catch (...) {
        std::fill_n(logits, n_logits, 0.0f);  // nothing unverified leaves
        throw;
    }
}

// Logits stay on the device as long as only the largest of them are asked for.
void Session::fetch_logits() {
    if (logits_are_here_) return;
    here_->fetch(conversation_.logits);
    logits_are_here_ = true;
}

// Nothing that was made of lost pages leaves. A device that reads the mapped file may do so until its results are here.
void Session::require_whole() const {
    here_->level->mapping.require_whole();
    model_->tables().require_whole();
}

int32_t Session::sample() {
    const int32_t n_needed = conversation_.sampler.n_needed();
    if (!logits_are_here_ && n_needed > 0 && n_needed <= kMostLikely) {
        std::array<LikelyToken, kMostLikely> room;
        const std::span likeliest(room.data(), static_cast<size_t>(n_needed));
        here_->find_likeliest(likeliest);
        require_whole();
        return conversation_.sampler.sample(likeliest);
    }
    fetch_logits();
    require_whole();
    return conversation_.sampler.sample({conversation_.logits, static_cast<size_t>(model_->vocab_size())},
                                        {conversation_.history, static_cast<size_t>(n_tokens_)});
}

int32_t Session::next() {
    const Call call(*this);
    ready();
    const int32_t token = sample();
    append({&token, 1});
    return token;
}

void Session::time_ops(bool on) {
    const Call call(*this);
    here_->time_ops(on);
}

OpTimes Session::op_times() const {
    const Call call(*this);
    return here_->op_times();
}

void Session::logprobs(int32_t n_top, edge_logprob* out) {
    const Call call(*this);
    const int32_t vocab_size = model_->vocab_size();
    if (n_top < 0 || n_top > vocab_size) {
        throw ArgumentError("n_top is " + std::to_string(n_top) + ", expected 0 to " + std::to_string(vocab_size));
    }
    if (n_logits_ == 0 || n_logits_ + 1 != n_tokens_) {
        throw ArgumentError("no token was sampled from the last logits\nhint: ask right after the token was sampled");
    }
    fetch_logits();
    conversation_.sampler.logprobs({conversation_.logits, static_cast<size_t>(vocab_size)}, conversation_.history[n_logits_],
                                   n_top, out);
}

void Session::generate(std::span<const int32_t> prompt, int32_t max_tokens, std::vector<std::string> stops, const Emit& emit,
                       int32_t& n_generated) {
    n_generated = 0;
    const Call call(*this);
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
