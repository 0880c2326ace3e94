/* Continues a text with one level of an artifact: the engine from C.
 *
 *     export PKG_CONFIG_PATH=BUNDLE/lib/pkgconfig
 *     cc -std=c99 examples/c_api/hello.c $(pkg-config --cflags --libs edge) -o hello
 *     LD_LIBRARY_PATH=BUNDLE/lib ./hello model.edge 3 "Once upon a time" */
#include <edge.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int32_t print_text(const char* utf8, size_t n_bytes, void* user) {
    fwrite(utf8, 1, n_bytes, (FILE*)user);
    fflush((FILE*)user);
    return 0;
}

/* Loads, opens a session, generates; what was made is closed by the caller, also after a failure. */
static edge_status run(const char* path, int32_t level, const char* prompt, edge_model** model, edge_session** session,
                       int32_t** tokens) {
    edge_load_options options = {0}; /* zero: the default in every field */
    size_t n_tokens = 0;
    edge_status status;
    options.struct_size = sizeof options;
    options.choose = 3; /* by level */
    options.level = level;
    if ((status = edge_model_load(path, &options, model)) != EDGE_OK) return status;
    fprintf(stderr, "%s\n", edge_model_level_reason(*model));

    /* Once for the number of tokens, once for the tokens. */
    if ((status = edge_tokenize(*model, prompt, strlen(prompt), 0, 1, NULL, 0, &n_tokens)) != EDGE_OK) return status;
    *tokens = (int32_t*)malloc((n_tokens + 1) * sizeof **tokens);
    if (*tokens == NULL) return EDGE_OUT_OF_MEMORY;
    if ((status = edge_tokenize(*model, prompt, strlen(prompt), 0, 1, *tokens, n_tokens, &n_tokens)) != EDGE_OK) return status;

    if ((status = edge_session_open(*model, session)) != EDGE_OK) return status;
    return edge_session_generate(*session, *tokens, n_tokens, 24, NULL, 0, print_text, stdout, NULL);
}

int main(int argc, char** argv) {
    edge_model* model = NULL;
    edge_session* session = NULL;
    int32_t* tokens = NULL;
    edge_status status;
    if (argc != 4) {
        fprintf(stderr, "usage: hello FILE.edge LEVEL PROMPT\n");
        return 2;
    }
    status = run(argv[1], (int32_t)strtol(argv[2], NULL, 10), argv[3], &model, &session, &tokens);
    if (status == EDGE_OK) {
        putchar('\n');
    } else {
        fprintf(stderr, "error: %s\n", edge_last_error());
    }
    free(tokens);
    edge_session_close(session);
    edge_model_close(model);
    return status == EDGE_OK ? 0 : 1;
}
