// What the commands of edge-run share: options, handles that close themselves, errors that end the program.
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "edge.h"

namespace edge::run {

// The command line is wrong: exit 2.
struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};
// A call failed: exit 1. The message may hold a "hint:" line.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Options {
    std::string command;
    std::string artifact;
    std::string prompt;
    std::string system;
    std::vector<std::string> stops;
    int32_t max_tokens = 128;
    int32_t prompt_tokens = 128;  // bench
    int32_t decode_tokens = 64;   // bench
    int32_t runs = 5;             // bench
    int32_t start_tokens = 0;     // bench
    bool all_levels = false;      // bench
    bool no_probe = false;        // bench
    bool ops = false;             // bench
    bool kernels = false;         // bench
    std::string op;               // bench --kernels: only this one
    uint64_t probe_bytes = 0;     // bench --kernels: what is read from memory, 0: the default
    bool json = false;
    edge_load_options load{};
    edge_sampling sampling{};
};

// Throws UsageError.
Options parse_options(int n_arguments, char** arguments);

// "80MB" = 80e6, "80MiB" = 80 * 2^20, a plain number = bytes. Throws UsageError.
uint64_t parse_bytes(const std::string& text);

// Throws Failure with the engine's message unless `status` is EDGE_OK.
void check(edge_status status);

struct CloseModel {
    void operator()(edge_model* model) const { edge_model_close(model); }
};
struct CloseSession {
    void operator()(edge_session* session) const { edge_session_close(session); }
};
using ModelHandle = std::unique_ptr<edge_model, CloseModel>;
using SessionHandle = std::unique_ptr<edge_session, CloseSession>;

ModelHandle load_model(const Options& options);
SessionHandle open_session(const ModelHandle& model, const edge_sampling& sampling);
std::vector<int32_t> tokenize(const ModelHandle& model, const std::string& text, bool special, bool add_bos);

// Generates with Ctrl-C as a way to end it; `on_text` gets each piece. Returns the number of tokens.
int32_t generate(const SessionHandle& session, const std::vector<int32_t>& prompt, const Options& options,
                 edge_text_callback on_text, void* user);

// The largest resident memory that this process had, mapped weights included; 0 where the system does not tell.
uint64_t peak_rss_bytes();

int run_generate(const Options& options);
int run_chat(const Options& options);
int run_bench(const Options& options);
int run_info(const Options& options);
int run_selftest(const Options& options);

}  // namespace edge::run
