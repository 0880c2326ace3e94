// The Python module _native: the C ABI, object by object. It holds no logic; model.py is the API.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "edge.h"

namespace nb = nanobind;

namespace {

using Tokens = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

// The exception of edgesdk.errors that stands for a status.
const char* exception_name(edge_status status) {
    switch (status) {
        case EDGE_BAD_ARGUMENT:
        case EDGE_CALLBACK_FAILED:
        case EDGE_CONTEXT_FULL: return "UsageError";
        case EDGE_CANCELLED: return "CancelledError";
        case EDGE_BAD_ARTIFACT:
        case EDGE_UNSUPPORTED: return "ArtifactError";
        case EDGE_BAD_HASH: return "HashError";
        case EDGE_TRUNCATED: return "TruncatedError";
        case EDGE_OUT_OF_MEMORY: return "MemoryBudgetError";
        default: return "EngineError";
    }
}

[[noreturn]] void raise(const char* name, const std::string& text) {
    const std::string mark = "\nhint: ";
    const size_t at = text.find(mark);
    const std::string hint = at == std::string::npos ? "" : text.substr(at + mark.size());
    const nb::object type = nb::module_::import_("edgesdk.errors").attr(name);
    const nb::object error = type(text.substr(0, at), nb::arg("hint") = hint);
    PyErr_SetObject(type.ptr(), error.ptr());
    throw nb::python_error();
}

void check(edge_status status) {
    if (status != EDGE_OK) raise(exception_name(status), edge_last_error());
}

// Runs a call of the C ABI without the GIL. The message is this thread's, so it is still there afterwards.
template <typename Call>
void check_released(Call&& call) {
    edge_status status;
    {
        const nb::gil_scoped_release release;
        status = call();
    }
    check(status);
}

struct CloseModel {
    void operator()(edge_model* model) const { edge_model_close(model); }
};
struct CloseSession {
    void operator()(edge_session* session) const { edge_session_close(session); }
};
struct CloseText {
    void operator()(edge_text* text) const { edge_text_close(text); }
};

class Model {
public:
    Model(const std::string& path, const edge_load_options& options) {
        edge_model* model = nullptr;
        check_released([&] { return edge_model_load(path.c_str(), &options, &model); });
        model_ = std::shared_ptr<edge_model>(model, CloseModel());
    }

    // Shared, so that a call in another thread outlives close().
    std::shared_ptr<edge_model> get() const {
        if (!model_) raise("UsageError", "this model is closed\nhint: load it again");
        return model_;
    }
    void close() { model_.reset(); }
    bool closed() const { return !model_; }

private:
    std::shared_ptr<edge_model> model_;
};

class Session {
public:
    explicit Session(const Model& model) : model_(model.get()) {
        edge_session* session = nullptr;
        check_released([&] { return edge_session_open(model_.get(), &session); });
        session_.reset(session);
    }

    // One thread at a time: holds the session for a call, or raises.
    class Use {
    public:
        explicit Use(Session& session) : session_(session) {
            if (session.busy_.exchange(true)) {
                raise("UsageError", "this session is in use by another thread\nhint: open one session per thread");
            }
        }
        ~Use() { session_.busy_ = false; }
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;

    private:
        Session& session_;
    };

    edge_session* get() const { return session_.get(); }
    size_t vocab_size() const { return static_cast<size_t>(edge_model_vocab_size(model_.get())); }

private:
    std::shared_ptr<edge_model> model_;
    std::unique_ptr<edge_session, CloseSession> session_;
    std::atomic<bool> busy_{false};
};

std::vector<const char*> pointers(const std::vector<std::string>& texts) {
    std::vector<const char*> found;
    for (const std::string& text : texts) found.push_back(text.c_str());
    return found;
}

// An answer's tokens to text; it holds the model itself.
class Text {
public:
    Text(const Model& model, const std::vector<std::string>& stop) {
        const auto stops = pointers(stop);
        edge_text* text = nullptr;
        check(edge_text_open(model.get().get(), stops.data(), stops.size(), &text));
        text_.reset(text);
    }

    // (text to show, bytes held back, whether a stop string was met)
    nb::tuple push(int32_t token) { return piece([&](edge_text_piece* out) { return edge_text_push(text_.get(), token, out); }); }
    nb::str finish() {
        return nb::str(piece([&](edge_text_piece* out) { return edge_text_finish(text_.get(), out); })[0]);
    }

private:
    template <typename Call>
    nb::tuple piece(Call&& call) {
        edge_text_piece piece{};
        piece.struct_size = sizeof piece;
        check(call(&piece));
        return nb::make_tuple(nb::str(piece.utf8, piece.n_bytes), piece.n_held_bytes, piece.stopped != 0);
    }

    std::unique_ptr<edge_text, CloseText> text_;
};

// How a level is held in memory and run; its level is chosen by the other arguments of Model.
edge_load_options load_options(int context, int kv_bits, int threads, int verify, bool lock, int chunk, bool prefault,
                               bool huge_pages, bool pin, bool adaptive, int min_level, int backend, int decode_backend) {
    edge_load_options options{};
    options.struct_size = sizeof options;
    options.context_tokens = context;
    options.kv_bits = kv_bits;
    options.n_threads = threads;
    options.verify = verify;
    options.lock_pages = lock;
    options.chunk_tokens = chunk;
    options.prefault = prefault;
    options.huge_pages = huge_pages;
    options.pin_threads = pin;
    options.adaptive = adaptive;
    options.min_level = min_level;
    options.backend = backend;
    options.decode_backend = decode_backend;
    return options;
}

nb::tuple level_info(const Model& model, int level) {
    edge_level_info info{};
    info.struct_size = sizeof info;
    check(edge_model_level_info(model.get().get(), level, &info));
    return nb::make_tuple(info.rate, info.mapped_bytes, info.file_bytes, info.perplexity, info.kl, info.available != 0);
}

nb::tuple estimate(const Model& model, int level, int context, int kv_bits) {
    edge_memory memory{};
    memory.struct_size = sizeof memory;
    check(edge_model_estimate(model.get().get(), level, context, kv_bits, &memory));
    return nb::make_tuple(memory.mapped_bytes, memory.kv_bytes, memory.workspace_bytes, memory.total_bytes);
}

// (name, device, driver, why it is no GPU, bytes on the device, programs compiled, name of what computes single tokens)
nb::tuple backend(const Model& model) {
    const auto handle = model.get();
    edge_backend_info info{};
    info.struct_size = sizeof info;
    check(edge_model_backend(handle.get(), &info));
    return nb::make_tuple(nb::str(info.name), nb::str(info.device), nb::str(info.driver), nb::str(info.reason), info.device_bytes,
                          info.n_compiled, nb::str(info.decode_name));
}

nb::tuple memory_budget() {
    uint64_t bytes = 0;
    char why[512];
    check(edge_memory_budget(&bytes, why, sizeof why));
    return nb::make_tuple(bytes, nb::str(why));
}

nb::str metadata(const Model& model) {
    size_t n_bytes = 0;
    const char* text = edge_model_metadata(model.get().get(), &n_bytes);
    return nb::str(text, n_bytes);
}

nb::object chat_template(const Model& model) {
    size_t n_bytes = 0;
    const char* text = edge_model_chat_template(model.get().get(), &n_bytes);
    return text ? nb::object(nb::bytes(text, n_bytes)) : nb::none();
}

std::vector<int32_t> tokenize(const Model& model, const nb::bytes& text, bool special, bool add_bos) {
    const auto handle = model.get();
    std::vector<int32_t> tokens(text.size() + 2);
    size_t n_tokens = 0;
    edge_status status;
    for (;;) {
        {
            const nb::gil_scoped_release release;
            status = edge_tokenize(handle.get(), text.c_str(), text.size(), special, add_bos, tokens.data(), tokens.size(),
                                   &n_tokens);
        }
        if (n_tokens <= tokens.size()) break;
        tokens.resize(n_tokens);
    }
    check(status);
    tokens.resize(n_tokens);
    return tokens;
}

nb::bytes detokenize(const Model& model, const std::vector<int32_t>& tokens, bool special) {
    const auto handle = model.get();
    size_t n_bytes = 0;
    check(edge_detokenize(handle.get(), tokens.data(), tokens.size(), special, nullptr, 0, &n_bytes));
    std::string text(n_bytes, '\0');
    check(edge_detokenize(handle.get(), tokens.data(), tokens.size(), special, text.data(), text.size(), &n_bytes));
    return nb::bytes(text.data(), text.size());
}

// Feeds tokens; returns their logits (n_tokens, vocab), those of the last token (1, vocab), or nothing.
nb::object feed(Session& session, const Tokens& tokens, bool all, bool wanted) {
    const Session::Use use(session);
    const size_t n_rows = all ? tokens.shape(0) : 1, vocab_size = session.vocab_size();
    std::unique_ptr<float[]> logits(wanted ? new float[n_rows * vocab_size] : nullptr);
    check_released([&] { return edge_session_feed(session.get(), tokens.data(), tokens.shape(0), all, logits.get()); });
    if (!wanted) return nb::none();
    float* data = logits.get();
    const nb::capsule owner(logits.release(), [](void* memory) noexcept { delete[] static_cast<float*>(memory); });
    return nb::cast(Logits(data, {n_rows, vocab_size}, owner));
}

void set_sampling(Session& session, float temperature, int top_k, float top_p, float min_p, float penalty, uint64_t seed) {
    const Session::Use use(session);
    const edge_sampling sampling{sizeof(edge_sampling), temperature, top_k, top_p, min_p, penalty, seed};
    check(edge_session_set_sampling(session.get(), &sampling));
}

struct TextSink {
    nb::callable callback;
    std::exception_ptr raised;
};

// Called without the GIL. A falsy answer, an exception or Ctrl-C ends the generation.
int32_t take_text(const char* utf8, size_t n_bytes, void* user) {
    auto* sink = static_cast<TextSink*>(user);
    const nb::gil_scoped_acquire acquire;
    try {
        const bool go_on = nb::cast<bool>(sink->callback(nb::str(utf8, n_bytes)));
        if (PyErr_CheckSignals() != 0) throw nb::python_error();
        return go_on ? 0 : 1;
    } catch (...) {
        sink->raised = std::current_exception();
        return 1;
    }
}

int32_t generate(Session& session, const Tokens& prompt, int max_tokens, const std::vector<std::string>& stop,
                 nb::callable callback) {
    const Session::Use use(session);
    const auto stops = pointers(stop);
    TextSink sink{std::move(callback), nullptr};
    int32_t n_generated = 0;
    check_released([&] {
        return edge_session_generate(session.get(), prompt.data(), prompt.shape(0), max_tokens, stops.data(), stops.size(),
                                     take_text, &sink, &n_generated);
    });
    if (sink.raised) std::rethrow_exception(sink.raised);
    return n_generated;
}

// [(token, logprob)]: the token that was sampled last, then the likeliest.
std::vector<std::pair<int32_t, float>> logprobs(Session& session, int32_t n_top) {
    const Session::Use use(session);
    const size_t n_most = std::min(static_cast<size_t>(std::max(n_top, 0)), session.vocab_size());
    std::vector<edge_logprob> found(1 + n_most);
    check_released([&] { return edge_session_logprobs(session.get(), n_top, found.data()); });
    std::vector<std::pair<int32_t, float>> pairs;
    for (const edge_logprob& one : found) pairs.emplace_back(one.token, one.logprob);
    return pairs;
}

}  // namespace

NB_MODULE(_native, m) {
    m.def("version", [] { return std::string(edge_version()); });
    m.def("isa", [] {
        const std::string isa = edge_isa();
        if (isa.empty()) raise("UsageError", edge_last_error());
        return isa;
    });
    m.def("memory_budget", memory_budget);

    nb::class_<Model>(m, "Model")
        .def("__init__", [](Model* self, const std::string& path, int choose, double rate, uint64_t budget, int level, int context,
                            int kv_bits, int threads, int verify, bool lock, int chunk, bool prefault, bool huge_pages, bool pin,
                            bool adaptive, int min_level, int backend, int decode_backend) {
            edge_load_options options = load_options(context, kv_bits, threads, verify, lock, chunk, prefault, huge_pages, pin,
                                                     adaptive, min_level, backend, decode_backend);
            options.choose = choose;
            options.rate = rate;
            options.budget_bytes = budget;
            options.level = level;
            new (self) Model(path, options);
        })
        .def("close", &Model::close)
        .def_prop_ro("closed", &Model::closed)
        .def_prop_ro("n_levels", [](const Model& model) { return edge_model_n_levels(model.get().get()); })
        .def_prop_ro("level", [](const Model& model) { return edge_model_level(model.get().get()); })
        .def_prop_ro("reason", [](const Model& model) { return std::string(edge_model_level_reason(model.get().get())); })
        .def_prop_ro("context", [](const Model& model) { return edge_model_context_tokens(model.get().get()); })
        .def_prop_ro("vocab_size", [](const Model& model) { return edge_model_vocab_size(model.get().get()); })
        .def_prop_ro("bytes_per_token", [](const Model& model) { return edge_model_token_bytes(model.get().get()); })
        .def_prop_ro("threads", [](const Model& model) { return edge_model_n_threads(model.get().get()); })
        .def("set_level", [](const Model& model, int level, int recompute) {
            check_released([&, handle = model.get()] { return edge_model_set_level(handle.get(), level, recompute); });
        })
        .def("trim", [](const Model& model, int severity) {
            check_released([&, handle = model.get()] { return edge_model_trim(handle.get(), severity); });
        })
        .def("level_info", level_info)
        .def("estimate", estimate)
        .def("backend", backend)
        .def("verify", [](const Model& model) { check_released([handle = model.get()] { return edge_model_verify(handle.get()); }); })
        .def("metadata", metadata)
        .def("chat_template", chat_template)
        .def("tokenize", tokenize)
        .def("detokenize", detokenize)
        .def("is_end_token", [](const Model& model, int token) { return edge_is_end_token(model.get().get(), token) != 0; });

    nb::class_<Session>(m, "Session")
        .def(nb::init<const Model&>())
        .def("feed", feed)
        .def("set_sampling", set_sampling)
        .def("generate", generate)
        .def("next", [](Session& session) {
            const Session::Use use(session);
            int32_t token = 0;
            check_released([&] { return edge_session_next(session.get(), &token); });
            return token;
        })
        .def("logprobs", logprobs)
        .def("rewind", [](Session& session, int n_tokens) {
            const Session::Use use(session);
            check(edge_session_rewind(session.get(), n_tokens));
        })
        .def("reset", [](Session& session) {
            const Session::Use use(session);
            edge_session_reset(session.get());
        })
        .def_prop_ro("position", [](const Session& session) { return edge_session_position(session.get()); })
        .def_prop_ro("n_exact", [](Session& session) {
            const Session::Use use(session);
            return edge_session_n_exact(session.get());
        })
        .def("cancel", [](const Session& session) { edge_session_cancel(session.get()); });

    nb::class_<Text>(m, "Text")
        .def(nb::init<const Model&, const std::vector<std::string>&>())
        .def("push", &Text::push)
        .def("finish", &Text::finish);
}
