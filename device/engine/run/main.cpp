// edge-run: the engine as one program, without Python. Data goes to stdout, remarks to stderr.
// Exit status: 0 done, 1 an error, 2 a wrong command line.
#include <cstdio>
#include <cstring>
#include <exception>

#include "program.h"

namespace {

constexpr const char* kUsage = R"(edge-run COMMAND FILE.edge [OPTIONS]

commands
  generate   continue a text            edge-run generate model.edge --prompt "Once upon a time"
  chat       talk, one message a line   edge-run chat model.edge --budget 80MB
  bench      tokens per second          edge-run bench model.edge --all-levels --json
  info       the levels of a file       edge-run info model.edge
  selftest   check this machine         edge-run selftest [model.edge]

which level to run (default: the largest that fits the free memory)
  --rate R          give up at least this share of the block weights: 0 is the full model
  --budget BYTES    memory for everything: 80MB, 76MiB or a number
  --level N         this level: 0 is the smallest
  --min-level N     refuse a file that was cut below this level

how to run it
  --context N       tokens of context (default: 2048, or less if the model takes less)
  --threads N       default: one per physical core
  --backend cpu|auto|opencl|cuda   what computes (default cpu)
  --decode-backend cpu|opencl|cuda what computes answers, where that is not what computes prompts
  --kv-bits 8|16    bits of the key/value cache (default 8)
  --verify lazy|eager|off
  --chunk N         tokens of a prompt that go through the layers together
  --lock            keep the weights in memory      --prefault        map every page before the first token
  --huge-pages      copy the weights to huge pages  --pin             one core per worker thread
  --adaptive        give up levels while memory is short

text
  --prompt TEXT     "-" reads it from stdin         --system TEXT     first message of a chat
  --max-tokens N    default 128                     --stop TEXT       end before this text; may be repeated
  --temperature T   0 (default) takes the likeliest --seed N
  --top-k N         --top-p P         --min-p P     --repetition-penalty X

bench
  --prompt-tokens N (128)   --decode-tokens N (64)   --runs N (5)   --all-levels
  --start N         tokens that are in the cache before the prompt (0)
  --no-probe        leave out how fast memory can be read
  --ops             also where the time of one more run goes, by kind of operation
  --kernels         every kernel by itself; needs no FILE
  --op NAME         with --kernels: only this one; stream_read: how fast memory is read
  --bytes SIZE      with --kernels: how much is read from memory (75MB)

  --json            one JSON object on stdout
  --version         --help
)";

// Prints "error: ..." and, on a line of its own, "hint: ...".
int report(const std::exception& error, int status) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return status;
}

int dispatch(const edge::run::Options& options) {
    using namespace edge::run;
    if (options.command == "generate") return run_generate(options);
    if (options.command == "chat") return run_chat(options);
    if (options.command == "bench") return run_bench(options);
    if (options.command == "info") return run_info(options);
    if (options.command == "selftest") return run_selftest(options);
    throw UsageError("there is no command `" + options.command + "`\nhint: edge-run --help");
}

}  // namespace

int main(int n_arguments, char** arguments) {
    if (n_arguments >= 2 && std::strcmp(arguments[1], "--version") == 0) {
        std::printf("edge-run %s\n", edge_version());
        return 0;
    }
    for (int i = 1; i < n_arguments; ++i) {
        if (std::strcmp(arguments[i], "--help") == 0 || std::strcmp(arguments[i], "-h") == 0) {
            std::fputs(kUsage, stdout);
            return 0;
        }
    }
    try {
        return dispatch(edge::run::parse_options(n_arguments, arguments));
    } catch (const edge::run::UsageError& error) {
        return report(error, 2);
    } catch (const std::exception& error) {
        return report(error, 1);
    }
}
