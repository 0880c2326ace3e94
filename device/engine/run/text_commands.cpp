// generate and chat.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "chat_format.h"
#include "program.h"

namespace edge::run {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

edge_session* volatile interrupted_session = nullptr;

void interrupt(int) {
    if (interrupted_session) edge_session_cancel(interrupted_session);
}

struct Output {
    bool print;
    std::string text;
    Clock::time_point begin = Clock::now(), first{};
};

int32_t take_text(const char* utf8, size_t n_bytes, void* user) {
    auto* output = static_cast<Output*>(user);
    if (output->text.empty()) output->first = Clock::now();
    output->text.append(utf8, n_bytes);
    if (output->print) {
        std::fwrite(utf8, 1, n_bytes, stdout);
        std::fflush(stdout);
    }
    return 0;
}

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

Json served(const ModelHandle& model) {
    edge_level_info info{};
    info.struct_size = sizeof info;
    check(edge_model_level_info(model.get(), edge_model_level(model.get()), &info));
    return {{"level", info.index}, {"rate", info.rate}, {"mapped_bytes", info.mapped_bytes}};
}

}  // namespace

int32_t generate(const SessionHandle& session, const std::vector<int32_t>& prompt, const Options& options,
                 edge_text_callback on_text, void* user) {
    std::vector<const char*> stops;
    for (const std::string& stop : options.stops) stops.push_back(stop.c_str());
    int32_t n_generated = 0;
    interrupted_session = session.get();
    std::signal(SIGINT, interrupt);
    const edge_status status = edge_session_generate(session.get(), prompt.data(), prompt.size(), options.max_tokens,
                                                     stops.data(), stops.size(), on_text, user, &n_generated);
    std::signal(SIGINT, SIG_DFL);
    interrupted_session = nullptr;
    check(status);
    return n_generated;
}

int run_generate(const Options& options) {
    std::string prompt = options.prompt;
    if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    if (prompt.empty()) throw UsageError("no prompt was given\nhint: --prompt TEXT, or --prompt - to read stdin");
    const ModelHandle model = load_model(options);
    const SessionHandle session = open_session(model, options.sampling);
    const std::vector<int32_t> tokens = tokenize(model, prompt, false, true);
    Output output{!options.json, "", Clock::now()};
    const int32_t n_generated = generate(session, tokens, options, take_text, &output);
    const auto end = Clock::now();
    if (output.first == Clock::time_point{}) output.first = end;
    const double prefill = seconds(output.first - output.begin), decode = seconds(end - output.first);
    if (options.json) {
        Json report = served(model);
        report.update({{"prompt", prompt}, {"text", output.text}, {"prompt_tokens", tokens.size()}, {"tokens", n_generated},
                       {"first_text_seconds", prefill}, {"seconds", seconds(end - output.begin)},
                       {"peak_rss_bytes", peak_rss_bytes()}});
        std::cout << report.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
        return 0;
    }
    std::fputs("\n", stdout);
    std::fflush(stdout);  // before the remark, also where both are pipes
    std::fprintf(stderr, "%zu prompt tokens, first text after %.0f ms; %d tokens, %.1f per second\n", tokens.size(), prefill * 1e3,
                 n_generated, n_generated > 1 && decode > 0 ? (n_generated - 1) / decode : 0.0);
    return 0;
}

int run_chat(const Options& options) {
    const ModelHandle model = load_model(options);
    size_t n_bytes = 0;
    const char* metadata = edge_model_metadata(model.get(), &n_bytes);
    const ChatFormat format({metadata, n_bytes});
    const SessionHandle session = open_session(model, options.sampling);
    std::string conversation = format.begin(options.system);
    bool after_system = !options.system.empty();
    std::vector<int32_t> cached;  // the last prompt
    for (std::string line; std::fprintf(stderr, "> "), std::getline(std::cin, line) && !trimmed(line).empty();) {
        const auto tokens = tokenize(model, conversation + format.user(line, after_system), true, false);
        size_t n_common = 0;
        while (n_common < cached.size() && n_common + 1 < tokens.size() && cached[n_common] == tokens[n_common]) ++n_common;
        check(edge_session_rewind(session.get(), static_cast<int32_t>(n_common)));
        Output output{!options.json, "", Clock::now()};
        generate(session, {tokens.begin() + static_cast<std::ptrdiff_t>(n_common), tokens.end()}, options, take_text, &output);
        if (options.json) {
            Json report = served(model);
            report.update({{"role", "assistant"}, {"content", output.text}});
            std::cout << report.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
        } else {
            std::fputs("\n", stdout);
            std::fflush(stdout);
        }
        conversation += format.turn(line, output.text, after_system);
        after_system = false;
        cached = tokens;
    }
    return 0;
}

}  // namespace edge::run
