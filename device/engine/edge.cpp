// The C ABI: checks arguments, turns exceptions into a status and this thread's message.
#include "edge.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "callback.h"
#include "kernels/registry.h"
#include "memory.h"
#include "model.h"
#include "session.h"
#include "text_stream.h"

#ifndef EDGE_VERSION
#error "the build defines EDGE_VERSION"
#endif

struct edge_model {
    std::shared_ptr<edge::Model> model;
};
struct edge_session {
    edge::Session session;
};
struct edge_text {
    std::shared_ptr<edge::Model> model;
    edge::TextStream stream;
    std::string shown;
};

namespace {

using edge::ArgumentError;

constexpr char kNoMemory[] = "an allocation failed\nhint: lower the context, or choose a smaller level";

thread_local std::string last_error;
thread_local bool has_no_message = false;  // there was no memory for it

edge_status fail(edge_status status, const char* message) noexcept {
    try {
        last_error = message;
        has_no_message = false;
    } catch (const std::bad_alloc&) {
        has_no_message = true;
    }
    return status;
}

template <typename Work>
edge_status guard(Work&& work) noexcept {
    try {
        work();
        return EDGE_OK;
    } catch (const edge::Error& error) {
        return fail(error.status, error.message.c_str());
    } catch (const std::bad_alloc&) {
        return fail(EDGE_OUT_OF_MEMORY, kNoMemory);
    } catch (const std::exception& error) {
        return fail(EDGE_INTERNAL, error.what());
    } catch (...) {
        return fail(EDGE_INTERNAL, "an unknown exception was thrown");
    }
}

// The answer of a function that returns no status: `fallback` where `work` throws.
template <typename T, typename Work>
T answer(T fallback, Work&& work) noexcept {
    T value = fallback;
    return guard([&] { value = work(); }) == EDGE_OK ? value : fallback;
}

template <typename T>
void require(const T* pointer, const char* name) {
    if (!pointer) throw ArgumentError(std::string("`") + name + "` is NULL");
}

const edge::Model& model_of(const edge_model* handle) {
    require(handle, "model");
    return *handle->model;
}

static_assert(offsetof(edge_load_options, decode_backend) >= 88, "a new field lies behind the padding of the struct before");

void require_struct_size(size_t given) {
    constexpr size_t kMost = 4096;  // more than any struct of edge.h will have: beyond, it was never set
    if (given < sizeof(size_t) || given > kMost) {
        throw ArgumentError("`struct_size` is " + std::to_string(given) + ", expected sizeof(the struct)");
    }
}

// The caller's struct, which may be older (shorter) than ours, what is missing is zero, or newer (longer): then it must not
// ask for what this library does not know.
template <typename T>
T read_struct(const T* given) {
    T own{};
    if (given) {
        require_struct_size(given->struct_size);
        const auto* bytes = reinterpret_cast<const unsigned char*>(given);
        if (std::any_of(bytes + std::min(given->struct_size, sizeof(T)), bytes + given->struct_size, [](auto b) { return b; })) {
            throw ArgumentError("an option is set that this library, version " EDGE_VERSION
                                ", does not know\nhint: leave it zero, or use the library that came with your edge.h");
        }
        std::memcpy(&own, given, std::min(given->struct_size, sizeof(T)));
    }
    own.struct_size = sizeof(T);
    return own;
}

template <typename T>
void write_struct(T* out, T value) {
    require(out, "out");
    const size_t size = out->struct_size;
    require_struct_size(size);
    value.struct_size = size;
    std::memcpy(out, &value, std::min(size, sizeof(T)));
}

void choose_kernels() {
    static const std::string failure = [] {
        std::string error;
        if (edge::select_isa_from_environment(&error)) return std::string();
        return error.empty() ? std::string("EDGE_ISA names no kernel set of this machine") : error;
    }();
    if (!failure.empty()) throw ArgumentError(failure);
}

// The caller's list of stop strings.
std::vector<std::string> read_stops(const char* const* stop, size_t n_stop) {
    if (n_stop) require(stop, "stop");
    for (size_t i = 0; i < n_stop; ++i) require(stop[i], "stop[i]");
    return {stop, stop + n_stop};
}

// Runs a step of a text, which appends to `shown` and returns whether it was stopped, and reports it.
template <typename Step>
edge_status write_piece(edge_text* text, edge_text_piece* out, Step&& step) {
    return guard([&] {
        require(text, "text");
        require(out, "out");
        text->shown.clear();
        const bool stopped = step(text->stream, text->shown);
        write_struct(out, edge_text_piece{0, text->shown.data(), text->shown.size(), text->stream.n_held_bytes(), stopped});
    });
}

// Copies what fits and reports the whole size.
template <typename T, typename Source>
void write_list(const Source& values, T* out, size_t capacity, size_t* n_values) {
    require(n_values, "n");
    *n_values = values.size();
    if (!out) return;
    if (capacity < values.size()) {
        throw ArgumentError("the output holds " + std::to_string(capacity) + " values, " + std::to_string(values.size()) +
                            " are needed");
    }
    std::copy(values.begin(), values.end(), out);
}

}  // namespace

extern "C" {

const char* edge_version(void) { return EDGE_VERSION; }

const char* edge_last_error(void) { return has_no_message ? kNoMemory : last_error.c_str(); }

const char* edge_isa(void) {
    return guard(choose_kernels) == EDGE_OK ? edge::isa_name() : "";
}

edge_status edge_memory_budget(uint64_t* bytes, char* why, size_t why_size) {
    return guard([&] {
        require(bytes, "bytes");
        const edge::MemoryBudget budget = edge::measure_memory();
        *bytes = budget.bytes;
        if (!why || why_size == 0) return;
        const size_t n = std::min(why_size - 1, budget.reason.size());
        std::memcpy(why, budget.reason.data(), n);
        why[n] = '\0';
    });
}

edge_status edge_model_load(const char* path, const edge_load_options* options, edge_model** out) {
    return guard([&] {
        require(path, "path");
        require(out, "out");
        *out = nullptr;
        choose_kernels();
        *out = new edge_model{edge::load_model(path, read_struct(options))};
    });
}

void edge_model_close(edge_model* model) { delete model; }

int32_t edge_model_n_levels(const edge_model* model) {
    return answer(0, [&] { return model_of(model).artifact().n_levels(); });
}

edge_status edge_model_level_info(const edge_model* model, int32_t level, edge_level_info* out) {
    return guard([&] {
        require(model, "model");
        const edge::Artifact& artifact = model->model->artifact();
        if (level < 0 || level >= artifact.n_levels()) {
            throw ArgumentError("level " + std::to_string(level) + " does not exist\nhint: levels are 0.." +
                                std::to_string(artifact.n_levels() - 1));
        }
        const edge::Level& found = artifact.levels[static_cast<size_t>(level)];
        write_struct(out, edge_level_info{0, level, level < artifact.n_available(), found.rate, found.mapped_bytes,
                                          found.file_bytes, found.perplexity, found.kl});
    });
}

int32_t edge_model_level(const edge_model* model) {
    return answer(-1, [&] { return model_of(model).level()->choice.level; });
}
const char* edge_model_level_reason(const edge_model* model) {
    thread_local std::string reason;  // a level may go while its reason is read
    return answer("", [&] {
        reason = model_of(model).level()->choice.reason;
        return reason.c_str();
    });
}
int32_t edge_model_context_tokens(const edge_model* model) {
    return answer(0, [&] { return model_of(model).demand().context_tokens; });
}
int32_t edge_model_vocab_size(const edge_model* model) {
    return answer(0, [&] { return model_of(model).vocab_size(); });
}
int32_t edge_model_n_threads(const edge_model* model) {
    return answer(0, [&] { return model_of(model).demand().n_threads; });
}
uint64_t edge_model_token_bytes(const edge_model* model) {
    return answer(uint64_t{0}, [&] { return model_of(model).level()->weights.token_bytes(); });
}

edge_status edge_model_backend(const edge_model* model, edge_backend_info* out) {
    return guard([&] {
        require(model, "model");
        const edge::Backend& backend = model->model->backend();
        const edge::Demand& demand = model->model->demand();
        edge_backend_info info{};
        info.name = info.decode_name = edge::gpu::backend_name(EDGE_BACKEND_CPU);
        info.device = info.driver = "";
        info.reason = backend.reason.c_str();
        if (const edge::gpu::Device* device = backend.device.get()) {
            const char* name = edge::gpu::backend_name(device->info().backend);
            if (demand.prefill_on_device) info.backend = device->info().backend, info.name = name;
            if (demand.decode_on_device) info.decode_name = name;
            info.n_compiled = device->n_compiled();
            info.device = device->info().name.c_str();
            info.driver = device->info().driver.c_str();
            info.device_bytes = device->allocated_bytes();
        }
        write_struct(out, info);
    });
}

edge_status edge_model_estimate(const edge_model* model, int32_t level, int32_t context_tokens, int32_t kv_bits,
                                edge_memory* out) {
    return guard([&] {
        require(model, "model");
        edge::Demand demand = model->model->demand();
        if (context_tokens < 0 || (kv_bits != 0 && kv_bits != 8 && kv_bits != 16)) {
            throw ArgumentError("context is " + std::to_string(context_tokens) + " and kv_bits " + std::to_string(kv_bits) +
                                ", expected at least 1 token and 8 or 16 bits");
        }
        if (context_tokens) demand.context_tokens = context_tokens;
        if (kv_bits) demand.kv_bits = kv_bits;
        const edge::Needs needs = model->model->needs(level, demand);
        write_struct(out, edge_memory{0, needs.mapped_bytes, needs.kv_bytes, needs.workspace_bytes, needs.total_bytes});
    });
}

edge_status edge_model_verify(edge_model* model) {
    return guard([&] {
        require(model, "model");
        model->model->level()->verifier.check();
    });
}

edge_status edge_model_trim(edge_model* model, int32_t severity) {
    return guard([&] {
        require(model, "model");
        if (severity < EDGE_TRIM_NONE || severity > EDGE_TRIM_CRITICAL) {
            throw ArgumentError("`severity` is " + std::to_string(severity) + ", expected 0 (none) to 3 (critical)");
        }
        model->model->trim(static_cast<edge_trim>(severity));
    });
}

edge_status edge_model_set_level(edge_model* model, int32_t level, int32_t recompute) {
    return guard([&] {
        require(model, "model");
        if (recompute < EDGE_RECOMPUTE_NONE || recompute > EDGE_RECOMPUTE_BACKGROUND) {
            throw ArgumentError("`recompute` is " + std::to_string(recompute) + ", expected 0 (none), 1 (next) or 2 (background)");
        }
        model->model->set_level(level, static_cast<edge_recompute>(recompute));
    });
}

const char* edge_model_metadata(const edge_model* model, size_t* n_bytes) {
    return answer<const char*>(nullptr, [&] {
        const std::string& text = model_of(model).artifact().metadata;
        if (n_bytes) *n_bytes = text.size();
        return text.c_str();
    });
}

const char* edge_model_chat_template(const edge_model* model, size_t* n_bytes) {
    return answer<const char*>(nullptr, [&] {
        const std::string_view text = model_of(model).chat_template();
        if (n_bytes) *n_bytes = text.size();
        return text.empty() ? nullptr : text.data();
    });
}

edge_status edge_tokenize(const edge_model* model, const char* text, size_t n_bytes, int32_t special, int32_t add_bos,
                          int32_t* out, size_t capacity, size_t* n_tokens) {
    return guard([&] {
        require(model, "model");
        if (n_bytes) require(text, "text");
        const auto tokens = model->model->tokenizer().encode({text, n_bytes}, special != 0, add_bos != 0);
        model->model->tables().require_whole();
        write_list(tokens, out, capacity, n_tokens);
    });
}

edge_status edge_detokenize(const edge_model* model, const int32_t* tokens, size_t n_tokens, int32_t special, char* out,
                            size_t capacity, size_t* n_bytes) {
    return guard([&] {
        require(model, "model");
        if (n_tokens) require(tokens, "tokens");
        const std::string text = model->model->tokenizer().decode({tokens, n_tokens}, special != 0);
        model->model->tables().require_whole();
        write_list(text, out, capacity, n_bytes);
    });
}

int32_t edge_is_end_token(const edge_model* model, int32_t token) {
    return answer(0, [&]() -> int32_t { return model_of(model).tokenizer().is_end_token(token); });
}

edge_status edge_session_open(edge_model* model, edge_session** out) {
    return guard([&] {
        require(model, "model");
        require(out, "out");
        *out = nullptr;
        *out = new edge_session{edge::Session(model->model)};
    });
}

void edge_session_close(edge_session* session) { delete session; }
void edge_session_reset(edge_session* session) {
    guard([&] {
        require(session, "session");
        session->session.reset();
    });
}

edge_status edge_session_rewind(edge_session* session, int32_t n_tokens) {
    return guard([&] {
        require(session, "session");
        session->session.rewind(n_tokens);
    });
}

int32_t edge_session_position(const edge_session* session) {
    return answer(0, [&] {
        require(session, "session");
        return session->session.n_tokens();
    });
}

int32_t edge_session_n_exact(const edge_session* session) {
    return answer(0, [&] {
        require(session, "session");
        return session->session.n_exact();
    });
}

void edge_session_cancel(edge_session* session) {
    if (session) session->session.cancel();
}

edge_status edge_session_feed(edge_session* session, const int32_t* tokens, size_t n_tokens, int32_t all_logits,
                              float* logits) {
    return guard([&] {
        require(session, "session");
        if (n_tokens) require(tokens, "tokens");
        session->session.feed({tokens, n_tokens}, all_logits != 0, logits);
    });
}

edge_status edge_session_set_sampling(edge_session* session, const edge_sampling* sampling) {
    return guard([&] {
        require(session, "session");
        session->session.set_sampling(read_struct(sampling));
    });
}

edge_status edge_session_next(edge_session* session, int32_t* token) {
    return guard([&] {
        require(session, "session");
        require(token, "token");
        *token = session->session.next();
    });
}

edge_status edge_session_logprobs(edge_session* session, int32_t n_top, edge_logprob* out) {
    return guard([&] {
        require(session, "session");
        require(out, "out");
        session->session.logprobs(n_top, out);
    });
}

edge_status edge_session_time_ops(edge_session* session, int32_t on) {
    return guard([&] {
        require(session, "session");
        session->session.time_ops(on != 0);
    });
}

int32_t edge_n_ops(void) { return static_cast<int32_t>(edge::kOpNames.size()); }

edge_status edge_session_op_time(const edge_session* session, int32_t index, edge_op_time* out) {
    return guard([&] {
        require(session, "session");
        if (index < 0 || index >= edge_n_ops()) {
            throw ArgumentError("operation " + std::to_string(index) + " does not exist\nhint: they are 0.." +
                                std::to_string(edge_n_ops() - 1));
        }
        const edge::OpTime time = session->session.op_times()[static_cast<size_t>(index)];
        write_struct(out, edge_op_time{0, edge::kOpNames[static_cast<size_t>(index)], time.n_calls, time.nanoseconds, time.bytes});
    });
}

edge_status edge_text_open(edge_model* model, const char* const* stop, size_t n_stop, edge_text** out) {
    return guard([&] {
        require(model, "model");
        require(out, "out");
        *out = nullptr;
        *out = new edge_text{model->model, edge::TextStream(model->model->tokenizer(), read_stops(stop, n_stop)), {}};
    });
}

void edge_text_close(edge_text* text) { delete text; }

edge_status edge_text_push(edge_text* text, int32_t token, edge_text_piece* out) {
    return write_piece(text, out, [&](edge::TextStream& stream, std::string& shown) { return stream.push(token, shown); });
}

edge_status edge_text_finish(edge_text* text, edge_text_piece* out) {
    return write_piece(text, out, [](edge::TextStream& stream, std::string& shown) { return stream.finish(shown); });
}

edge_status edge_session_generate(edge_session* session, const int32_t* prompt, size_t n_prompt, int32_t max_tokens,
                                  const char* const* stop, size_t n_stop, edge_text_callback callback, void* user,
                                  int32_t* n_generated) {
    return guard([&] {
        require(session, "session");
        if (n_prompt) require(prompt, "prompt");
        int32_t unused;
        session->session.generate({prompt, n_prompt}, max_tokens, read_stops(stop, n_stop),
                                  [&](std::string_view text) { return edge::wants_more(callback, text, user); },
                                  n_generated ? *n_generated : unused);
    });
}

}  // extern "C"
