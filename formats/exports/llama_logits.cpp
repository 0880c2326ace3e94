// Logits of a GGUF file by llama.cpp, for `edgesdk export --to gguf --check`: compiled against a built tree of it.
//
//   llama_logits MODEL.gguf CONTEXT
//
// Reads requests from stdin, int32: position, n_tokens, tokens; 0 begins a new text. Answers each with the float32
// logits behind its last token. Ends at the end of stdin.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "llama.h"

static void only_errors(ggml_log_level level, const char* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

static bool read_numbers(int32_t* numbers, size_t n) { return std::fread(numbers, sizeof(int32_t), n, stdin) == n; }

int main(int n_arguments, char** arguments) {
  if (n_arguments != 3) return 2;
  llama_log_set(only_errors, nullptr);
  llama_backend_init();
  llama_model_params model_options = llama_model_default_params();
  model_options.n_gpu_layers = 0;
  llama_model* model = llama_model_load_from_file(arguments[1], model_options);
  if (model == nullptr) return 1;
  llama_context_params options = llama_context_default_params();
  options.n_ctx = options.n_batch = options.n_ubatch = static_cast<uint32_t>(std::atoi(arguments[2]));
  options.n_threads = options.n_threads_batch = 1;
  options.type_k = options.type_v = GGML_TYPE_F32;
  options.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  llama_context* context = llama_init_from_model(model, options);
  if (context == nullptr) return 1;
  const size_t n_vocab = static_cast<size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)));
  int32_t head[2];
  while (read_numbers(head, 2)) {
    std::vector<int32_t> tokens(static_cast<size_t>(head[1]));
    if (!read_numbers(tokens.data(), tokens.size())) return 1;
    if (head[0] == 0) llama_memory_clear(llama_get_memory(context), true);
    if (llama_decode(context, llama_batch_get_one(tokens.data(), head[1])) != 0) return 1;
    const float* logits = llama_get_logits_ith(context, -1);
    if (std::fwrite(logits, sizeof(float), n_vocab, stdout) != n_vocab || std::fflush(stdout) != 0) return 1;
  }
  return 0;
}
