/* The C ABI of the edgesdk engine. Everything else (edge-run, Python, apps) goes through it.
 *
 * Handles are opaque. Every function that can fail returns an edge_status; edge_last_error() gives this thread's message
 * (what was found, what was expected, and after a newline "hint: ..." where there is a way out).
 * Functions that return a value instead answer 0, "" or NULL (a level: -1) for a NULL handle. Closing NULL does nothing.
 * Option structs begin with struct_size = sizeof(the struct the caller compiled with); zero means the default in every field.
 * A library older than the caller's edge.h refuses a field that it does not know unless it is zero.
 * No C++ exception crosses this border: what a callback throws ends the call with EDGE_CALLBACK_FAILED and its message. A
 * libedge.so that another kind of compiler built than the caller's program (zig and the NDK have libc++ and an unwinder of
 * their own, g++ has not) cannot catch it: there, a callback must not throw.
 * A model may be shared by threads; a session belongs to one thread at a time, and may outlive the handle of its model.
 * The symbols of libedge.so are versioned: a program refuses to start with a library that lacks what it was linked with. */
#ifndef EDGE_H
#define EDGE_H
#include <stddef.h>
#include <stdint.h>

#if defined(EDGE_SHARED)
#define EDGE_API __attribute__((visibility("default")))
#else
#define EDGE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct edge_model edge_model;     /* an artifact, and a level of it, mapped */
typedef struct edge_session edge_session; /* one conversation: KV cache, sampler, position */
typedef struct edge_text edge_text;       /* one answer's tokens on their way to text */

/* Grouped by blame: 1-99 the caller, 100-199 the file, 200-299 the machine, 300+ us. */
typedef enum edge_status {
    EDGE_OK = 0,
    EDGE_BAD_ARGUMENT = 1,
    EDGE_CONTEXT_FULL = 2,
    EDGE_CANCELLED = 3,
    EDGE_CALLBACK_FAILED = 4,    /* the caller's callback threw an exception */
    EDGE_BAD_ARTIFACT = 100,     /* breaks a rule of SPEC.md */
    EDGE_BAD_HASH = 101,         /* bytes differ from the SHA-256 in the header */
    EDGE_TRUNCATED = 102,        /* the level asked for is not in this file */
    EDGE_UNSUPPORTED = 103,      /* unknown major version, kind or tokenizer */
    EDGE_NOT_FOUND = 200,
    EDGE_IO = 201,
    EDGE_OUT_OF_MEMORY = 202,    /* the budget does not hold the smallest level, or an allocation failed */
    EDGE_NO_DEVICE = 203,        /* the backend that was asked for is not there, or failed its self-test */
    EDGE_INTERNAL = 300
} edge_status;

typedef enum edge_verify { EDGE_VERIFY_LAZY = 0, EDGE_VERIFY_EAGER = 1, EDGE_VERIFY_OFF = 2 } edge_verify;
/* LAZY: hashes are checked in the background while the model is already usable; no result leaves the engine before the
 * runs it depends on have passed. EAGER: before edge_model_load returns. */

/* What becomes of conversations when the level changes: keys, values and states that both levels keep are taken along, and the
 * rest is zero (NONE); they are computed again, in the next step (NEXT), or by a thread beside the session, which goes on with
 * what was taken along until that is done (BACKGROUND). */
typedef enum edge_recompute { EDGE_RECOMPUTE_NONE = 0, EDGE_RECOMPUTE_NEXT = 1, EDGE_RECOMPUTE_BACKGROUND = 2 } edge_recompute;

/* How short of memory an app is, as its system tells it. */
typedef enum edge_trim { EDGE_TRIM_NONE = 0, EDGE_TRIM_MODERATE = 1, EDGE_TRIM_LOW = 2, EDGE_TRIM_CRITICAL = 3 } edge_trim;

/* What computes. AUTO: CUDA, or a GPU through OpenCL, whichever is there, passes the self-test, has kernels for the model and memory
 * for its level and a session; else the CPU. OPENCL without a GPU takes whatever device OpenCL has. On a GPU weights, key/value
 * cache and rows lie in its memory, weights in the mapped file where it shares memory with the host and its driver takes that, and
 * lock_pages, prefault, huge_pages, pin_threads and n_threads mean nothing. */
typedef enum edge_backend { EDGE_BACKEND_CPU = 0, EDGE_BACKEND_AUTO = 1, EDGE_BACKEND_OPENCL = 2, EDGE_BACKEND_CUDA = 3 } edge_backend;

/* What computes tokens that come one at a time, as in an answer, while `backend` takes the chunks of prompts. Numbers are those of
 * edge_backend but for the first two. Keys, values and states are handed over exactly. One of the two must be the CPU. Each holds a
 * cache, and weights unless both can read the same ones in memory that they share. */
typedef enum edge_decode_backend {
    EDGE_DECODE_SAME = 0,
    EDGE_DECODE_CPU = 1,
    EDGE_DECODE_OPENCL = 2,
    EDGE_DECODE_CUDA = 3
} edge_decode_backend;

typedef struct edge_load_options {
    size_t struct_size;
    int32_t choose;          /* 0 automatic (measured memory), 1 by rate, 2 by budget_bytes, 3 by level */
    double rate;
    uint64_t budget_bytes;
    int32_t level;
    int32_t context_tokens;  /* 0: min(model maximum, 2048) */
    int32_t kv_bits;         /* 0: 8; or 16 */
    int32_t n_threads;       /* 0: one per physical core this process may use */
    int32_t verify;          /* edge_verify */
    int32_t lock_pages;      /* 1: mlock the weights */
    int32_t chunk_tokens;    /* tokens of a prompt that go through the layers together; 0: 128 */
    int32_t prefault;        /* 1: every page of the weights is in memory and mapped when edge_model_load returns */
    int32_t huge_pages;      /* 1: the weights are copied to memory of their own with 2 MiB pages, where the system gives them */
    int32_t pin_threads;     /* 1: each worker thread stays on a core of its own; the calling thread is left alone */
    int32_t adaptive;        /* 1: a thread gives levels up while memory is short, and takes them back when it is not */
    int32_t min_level;       /* a file that was cut below this level is refused with EDGE_TRUNCATED, whichever level is run */
    int32_t backend;         /* edge_backend; a GPU that cannot be used is EDGE_NO_DEVICE, one that is too small EDGE_OUT_OF_MEMORY */
    int32_t unused;          /* where the struct of before ended in padding, which may hold anything: not looked at */
    int32_t decode_backend;  /* edge_decode_backend */
} edge_load_options;

typedef struct edge_level_info {
    size_t struct_size;
    int32_t index;
    int32_t available;       /* 0: this (truncated) file does not hold it */
    double rate;
    uint64_t mapped_bytes;
    uint64_t file_bytes;
    double perplexity;       /* NaN: not measured */
    double kl;
} edge_level_info;

typedef struct edge_backend_info { /* texts are valid as long as the model */
    size_t struct_size;
    int32_t backend;          /* edge_backend of prompts, never AUTO */
    int32_t n_compiled;       /* programs that were compiled from source since the device was opened; 0: they came from the cache */
    const char* name;         /* "cpu", "opencl" or "cuda" */
    const char* device;       /* the GPU that takes part, as its driver calls it; "": none does, like the next two */
    const char* driver;
    const char* reason;       /* why AUTO did not take a GPU */
    uint64_t device_bytes;    /* that this process holds there, all models and sessions together; no mapped file that it reads */
    const char* decode_name;  /* "cpu", "opencl" or "cuda": what computes single tokens */
} edge_backend_info;

typedef struct edge_memory {  /* what a level needs at a context length; exact; with two backends the sum of both */
    size_t struct_size;
    uint64_t mapped_bytes;    /* weights, page by page from the file */
    uint64_t kv_bytes;        /* one session's cache */
    uint64_t workspace_bytes; /* one session's buffers, and the tables of tokenizer and header */
    uint64_t total_bytes;
} edge_memory;

typedef struct edge_sampling {
    size_t struct_size;
    float temperature;        /* 0: greedy */
    int32_t top_k;            /* 0: off */
    float top_p;              /* 0 or 1: off */
    float min_p;              /* 0: off */
    float repetition_penalty; /* 0 or 1: off */
    uint64_t seed;
} edge_sampling;

/* A token and the natural logarithm of its probability: softmax of the model's logits, before penalty and temperature. */
typedef struct edge_logprob {
    int32_t token;
    float logprob;            /* -infinity: never */
} edge_logprob;

typedef struct edge_op_time {
    size_t struct_size;
    const char* op;           /* "embed", "norm", "qkv", "store", "attention", "merge", "o", "gate_up", "activate", "down", "head",
                               * "ssm_in", "ssm_scan", "ssm_out" */
    uint64_t n_calls;
    uint64_t nanoseconds;
    uint64_t bytes;           /* of weights and cache that the calls read, each once per call; 0 where they read neither */
} edge_op_time;

typedef struct edge_text_piece {
    size_t struct_size;
    const char* utf8;         /* what may be shown now: whole characters, valid until the next call with this edge_text */
    size_t n_bytes;
    size_t n_held_bytes;      /* of text that is held back, because a stop string may begin in it */
    int32_t stopped;          /* 1: a stop string was met, nothing more may be pushed */
} edge_text_piece;

EDGE_API const char* edge_version(void);
EDGE_API const char* edge_last_error(void);
EDGE_API const char* edge_isa(void); /* the kernel set in use, e.g. "avx512vnni"; EDGE_ISA forces one */

/* Bytes that automatic selection would grant now: the lowest of MemAvailable, cgroup v1/v2 room and RLIMIT_AS/DATA, less the
 * reserve (the larger of 64 MiB and 10 %). `why` (may be NULL) receives one line that names the limit. */
EDGE_API edge_status edge_memory_budget(uint64_t* bytes, char* why, size_t why_size);

/* The first load installs a handler of SIGBUS for pages that this library maps: a file that is cut while it is mapped becomes
 * EDGE_IO. Signals that have other causes go to the handler that was there before. */
EDGE_API edge_status edge_model_load(const char* path, const edge_load_options* options, edge_model** out);
EDGE_API void edge_model_close(edge_model* model);
EDGE_API int32_t edge_model_n_levels(const edge_model* model);
EDGE_API edge_status edge_model_level_info(const edge_model* model, int32_t level, edge_level_info* out);
EDGE_API int32_t edge_model_level(const edge_model* model);
/* Why this level was chosen; valid until this thread asks again. */
EDGE_API const char* edge_model_level_reason(const edge_model* model);
EDGE_API int32_t edge_model_context_tokens(const edge_model* model);
EDGE_API edge_status edge_model_backend(const edge_model* model, edge_backend_info* out);
EDGE_API int32_t edge_model_vocab_size(const edge_model* model);
EDGE_API int32_t edge_model_n_threads(const edge_model* model);
EDGE_API uint64_t edge_model_token_bytes(const edge_model* model); /* weights that one token reads, key/value cache apart */
EDGE_API edge_status edge_model_estimate(const edge_model* model, int32_t level, int32_t context_tokens, int32_t kv_bits,
                                         edge_memory* out);
EDGE_API edge_status edge_model_verify(edge_model* model); /* waits for, or runs, the check of every mapped run */
/* Changes the level, from any thread, while sessions run. The new level is mapped and its hashes are checked (unless they are
 * off) while they go on; then each step of a session that begins is at the new level, a step that runs ends at the one before.
 * What the new level does not use goes back to the system once no step uses it. Conversations go on; `recompute` is an
 * edge_recompute. In the background each takes the memory of one more session for a while; one for which there is none goes on
 * with what was taken along. When this fails, nothing has changed. */
EDGE_API edge_status edge_model_set_level(edge_model* model, int32_t level, int32_t recompute);
/* For apps that are told of memory, as by Android's onTrimMemory, with or without `adaptive`: MODERATE gives up a level that
 * frees an eighth of what the present one needs, LOW half of what can be freed, CRITICAL all of it; NONE goes back to the level
 * that was loaded or set last. Conversations go on as with edge_model_set_level. */
EDGE_API edge_status edge_model_trim(edge_model* model, int32_t severity);
EDGE_API const char* edge_model_metadata(const edge_model* model, size_t* n_bytes); /* the header's `edge` JSON text */
EDGE_API const char* edge_model_chat_template(const edge_model* model, size_t* n_bytes); /* Jinja source, NULL: none */

/* Tokens. `special` != 0: text may name special tokens, as chat templates do. Two calls: with out == NULL for the count. */
EDGE_API edge_status edge_tokenize(const edge_model* model, const char* text, size_t n_bytes, int32_t special, int32_t add_bos,
                                   int32_t* out, size_t capacity, size_t* n_tokens);
EDGE_API edge_status edge_detokenize(const edge_model* model, const int32_t* tokens, size_t n_tokens, int32_t special,
                                     char* out, size_t capacity, size_t* n_bytes);
EDGE_API int32_t edge_is_end_token(const edge_model* model, int32_t token);

EDGE_API edge_status edge_session_open(edge_model* model, edge_session** out);
EDGE_API void edge_session_close(edge_session* session);
EDGE_API void edge_session_reset(edge_session* session); /* forget the conversation, and a cancel that met no call */
EDGE_API edge_status edge_session_rewind(edge_session* session, int32_t n_tokens); /* keep only the first n_tokens */
EDGE_API int32_t edge_session_position(const edge_session* session); /* tokens of the conversation, sampled ones included */
/* Tokens whose keys, values and states are, or will be, what the current level makes of them: all of the conversation, or 0
 * after a change of levels that did not recompute, or has not yet. For callers that use a conversation's beginning for another one. */
EDGE_API int32_t edge_session_n_exact(const edge_session* session);
/* From any thread: the running call, or else the next one that computes, returns EDGE_CANCELLED. Tokens that it had not
 * finished are forgotten. */
EDGE_API void edge_session_cancel(edge_session* session);

/* Feeds tokens. logits == NULL: none wanted; all_logits: float32 (n_tokens, vocab), else only the last row. */
EDGE_API edge_status edge_session_feed(edge_session* session, const int32_t* tokens, size_t n_tokens, int32_t all_logits,
                                       float* logits);
EDGE_API edge_status edge_session_set_sampling(edge_session* session, const edge_sampling* sampling);
/* Samples the next token from the last logits and appends it; it is pushed through the model when the next call needs it. */
EDGE_API edge_status edge_session_next(edge_session* session, int32_t* token);
/* Of the logits that the last edge_session_next sampled from: out[0] is the token it took, out[1 .. n_top] are the likeliest,
 * likeliest first. Nothing may have been fed or rewound in between. */
EDGE_API edge_status edge_session_logprobs(edge_session* session, int32_t n_top, edge_logprob* out);

/* Where the time of calls that compute goes. on != 0: keeps sums per kind of operation, from zero; 0: keeps none (the default).
 * Reading them: index counts from 0 to edge_n_ops() - 1. */
EDGE_API edge_status edge_session_time_ops(edge_session* session, int32_t on);
EDGE_API int32_t edge_n_ops(void);
EDGE_API edge_status edge_session_op_time(const edge_session* session, int32_t index, edge_op_time* out);

/* What edge_session_generate does with tokens, for callers that sample them one by one. Push no end token.
 * edge_text_finish gives what is left when the answer ended without a stop string (or with one that ends in the U+FFFD of half
 * a character: it says so in `stopped`). */
EDGE_API edge_status edge_text_open(edge_model* model, const char* const* stop, size_t n_stop, edge_text** out);
EDGE_API void edge_text_close(edge_text* text);
EDGE_API edge_status edge_text_push(edge_text* text, int32_t token, edge_text_piece* out);
EDGE_API edge_status edge_text_finish(edge_text* text, edge_text_piece* out);

/* Text in, text out. The callback gets UTF-8 that is never cut inside a character; it returns 0 to go on, else the call
 * ends early with EDGE_OK. Stop strings are never emitted, not even in part. An end token, max_tokens and the end of the
 * context end it too; a prompt that fills the context is EDGE_CONTEXT_FULL. Special tokens are not emitted. */
typedef int32_t (*edge_text_callback)(const char* utf8, size_t n_bytes, void* user);
EDGE_API edge_status edge_session_generate(edge_session* session, const int32_t* prompt, size_t n_prompt, int32_t max_tokens,
                                           const char* const* stop, size_t n_stop, edge_text_callback callback, void* user,
                                           int32_t* n_generated);

#ifdef __cplusplus
}
#endif
#endif
