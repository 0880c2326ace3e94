/* The Java binding: the functions of Native.java over edge.h. Handles travel as jlong, text as UTF-8 in byte arrays. */
#include <edge.h>
#include <jni.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FUNCTION(type, name) JNIEXPORT type JNICALL Java_edgesdk_Native_##name

static edge_model* to_model(jlong handle) { return (edge_model*)(intptr_t)handle; }
static edge_session* to_session(jlong handle) { return (edge_session*)(intptr_t)handle; }

static void throw_named(JNIEnv* env, const char* name, const char* message) {
    jclass type = (*env)->FindClass(env, name);
    if (type) (*env)->ThrowNew(env, type, message);
}

static jbyteArray new_bytes(JNIEnv* env, const char* data, size_t n_bytes) {
    jbyteArray array;
    if (n_bytes > INT32_MAX) {
        throw_named(env, "java/lang/OutOfMemoryError", "a text is longer than a Java array");
        return NULL;
    }
    array = (*env)->NewByteArray(env, (jsize)n_bytes);
    if (array) (*env)->SetByteArrayRegion(env, array, 0, (jsize)n_bytes, (const jbyte*)data);
    return array;
}

/* 1 when the call went well; else this thread's message becomes an EdgeException. */
static int succeeded(JNIEnv* env, edge_status status) {
    const char* message = edge_last_error();
    jclass type;
    jmethodID constructor;
    jbyteArray text;
    jobject error;
    if (status == EDGE_OK) return 1;
    if ((*env)->ExceptionCheck(env)) return 0;
    type = (*env)->FindClass(env, "edgesdk/EdgeException");
    if (!type) return 0;
    constructor = (*env)->GetMethodID(env, type, "<init>", "(I[B)V");
    if (!constructor) return 0;
    text = new_bytes(env, message, strlen(message));
    if (!text) return 0;
    error = (*env)->NewObject(env, type, constructor, (jint)status, text);
    if (error) (*env)->Throw(env, (jthrowable)error);
    return 0;
}

/* Memory that the caller frees; NULL with an OutOfMemoryError pending. */
static void* allocate(JNIEnv* env, size_t n_bytes) {
    void* memory = malloc(n_bytes ? n_bytes : 1);
    if (!memory) throw_named(env, "java/lang/OutOfMemoryError", "the Java binding of edgesdk");
    return memory;
}

/* A copy with a NUL behind it, which the caller frees; NULL with an exception pending. */
static char* copy_text(JNIEnv* env, jbyteArray text, size_t* n_bytes) {
    jsize length = (*env)->GetArrayLength(env, text);
    char* copy = (char*)allocate(env, (size_t)length + 1);
    if (!copy) return NULL;
    (*env)->GetByteArrayRegion(env, text, 0, length, (jbyte*)copy);
    copy[length] = '\0';
    if (n_bytes) *n_bytes = (size_t)length;
    return copy;
}

FUNCTION(jbyteArray, version)(JNIEnv* env, jclass type) {
    (void)type;
    return new_bytes(env, edge_version(), strlen(edge_version()));
}

FUNCTION(jlong, modelLoad)(JNIEnv* env, jclass type, jbyteArray path, jint choose, jdouble rate, jlong budget_bytes, jint level,
                           jint context_tokens, jint kv_bits, jint n_threads, jint verify, jint backend) {
    edge_load_options options;
    edge_model* model = NULL;
    edge_status status;
    char* name = copy_text(env, path, NULL);
    (void)type;
    if (!name) return 0;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.choose = choose;
    options.rate = rate;
    options.budget_bytes = budget_bytes > 0 ? (uint64_t)budget_bytes : 0;
    options.level = level;
    options.context_tokens = context_tokens;
    options.kv_bits = kv_bits;
    options.n_threads = n_threads;
    options.verify = verify;
    options.backend = backend;
    status = edge_model_load(name, &options, &model);
    free(name);
    return succeeded(env, status) ? (jlong)(intptr_t)model : 0;
}

FUNCTION(jbyteArray, modelBackend)(JNIEnv* env, jclass type, jlong model) {
    edge_backend_info info;
    (void)type;
    info.struct_size = sizeof info;
    if (!succeeded(env, edge_model_backend(to_model(model), &info))) return NULL;
    return new_bytes(env, info.name, strlen(info.name));
}

FUNCTION(void, modelClose)(JNIEnv* env, jclass type, jlong model) {
    (void)env, (void)type;
    edge_model_close(to_model(model));
}

FUNCTION(jint, modelLevel)(JNIEnv* env, jclass type, jlong model) {
    (void)env, (void)type;
    return edge_model_level(to_model(model));
}

FUNCTION(void, modelSetLevel)(JNIEnv* env, jclass type, jlong model, jint level, jint recompute) {
    (void)type;
    succeeded(env, edge_model_set_level(to_model(model), level, recompute));
}

FUNCTION(void, modelTrim)(JNIEnv* env, jclass type, jlong model, jint severity) {
    (void)type;
    succeeded(env, edge_model_trim(to_model(model), severity));
}

FUNCTION(jint, modelLevelCount)(JNIEnv* env, jclass type, jlong model) {
    (void)env, (void)type;
    return edge_model_n_levels(to_model(model));
}

FUNCTION(jobject, modelLevelInfo)(JNIEnv* env, jclass type, jlong model, jint level) {
    edge_level_info info;
    jclass result;
    jmethodID constructor;
    (void)type;
    info.struct_size = sizeof info;
    if (!succeeded(env, edge_model_level_info(to_model(model), level, &info))) return NULL;
    result = (*env)->FindClass(env, "edgesdk/LevelInfo");
    if (!result) return NULL;
    constructor = (*env)->GetMethodID(env, result, "<init>", "(IZDJJD)V");
    if (!constructor) return NULL;
    return (*env)->NewObject(env, result, constructor, (jint)info.index, (jboolean)(info.available != 0), (jdouble)info.rate,
                             (jlong)info.mapped_bytes, (jlong)info.file_bytes, (jdouble)info.perplexity);
}

FUNCTION(jbyteArray, modelLevelReason)(JNIEnv* env, jclass type, jlong model) {
    const char* reason = edge_model_level_reason(to_model(model));
    (void)type;
    return new_bytes(env, reason, strlen(reason));
}

FUNCTION(jint, modelContextTokens)(JNIEnv* env, jclass type, jlong model) {
    (void)env, (void)type;
    return edge_model_context_tokens(to_model(model));
}

FUNCTION(jintArray, tokenize)(JNIEnv* env, jclass type, jlong model, jbyteArray text, jboolean special, jboolean add_bos) {
    size_t n_bytes = 0, n_tokens = 0, capacity;
    int32_t* tokens = NULL;
    jintArray result = NULL;
    char* bytes = copy_text(env, text, &n_bytes);
    (void)type;
    if (!bytes) return NULL;
    capacity = n_bytes + 8; /* no text has more tokens than bytes, but for a first one */
    tokens = (int32_t*)allocate(env, capacity * sizeof *tokens);
    if (tokens && succeeded(env, edge_tokenize(to_model(model), bytes, n_bytes, special, add_bos, tokens, capacity, &n_tokens))) {
        result = (*env)->NewIntArray(env, (jsize)n_tokens);
        if (result) (*env)->SetIntArrayRegion(env, result, 0, (jsize)n_tokens, (const jint*)tokens);
    }
    free(tokens);
    free(bytes);
    return result;
}

FUNCTION(jbyteArray, detokenize)(JNIEnv* env, jclass type, jlong model, jintArray tokens, jboolean special) {
    size_t n_tokens = (size_t)(*env)->GetArrayLength(env, tokens), n_bytes = 0;
    jint* values = (*env)->GetIntArrayElements(env, tokens, NULL);
    jbyteArray result = NULL;
    char* text = NULL;
    (void)type;
    if (!values) return NULL;
    if (succeeded(env, edge_detokenize(to_model(model), (const int32_t*)values, n_tokens, special, NULL, 0, &n_bytes))) {
        text = (char*)allocate(env, n_bytes);
        if (text && succeeded(env, edge_detokenize(to_model(model), (const int32_t*)values, n_tokens, special, text, n_bytes,
                                                   &n_bytes))) {
            result = new_bytes(env, text, n_bytes);
        }
    }
    free(text);
    (*env)->ReleaseIntArrayElements(env, tokens, values, JNI_ABORT);
    return result;
}

FUNCTION(jlong, sessionOpen)(JNIEnv* env, jclass type, jlong model) {
    edge_session* session = NULL;
    (void)type;
    return succeeded(env, edge_session_open(to_model(model), &session)) ? (jlong)(intptr_t)session : 0;
}

FUNCTION(void, sessionClose)(JNIEnv* env, jclass type, jlong session) {
    (void)env, (void)type;
    edge_session_close(to_session(session));
}

FUNCTION(void, sessionReset)(JNIEnv* env, jclass type, jlong session) {
    (void)env, (void)type;
    edge_session_reset(to_session(session));
}

FUNCTION(void, sessionCancel)(JNIEnv* env, jclass type, jlong session) {
    (void)env, (void)type;
    edge_session_cancel(to_session(session));
}

FUNCTION(jint, sessionPosition)(JNIEnv* env, jclass type, jlong session) {
    (void)env, (void)type;
    return edge_session_position(to_session(session));
}

FUNCTION(void, sessionSetSampling)(JNIEnv* env, jclass type, jlong session, jfloat temperature, jint top_k, jfloat top_p,
                                   jfloat min_p, jfloat repetition_penalty, jlong seed) {
    edge_sampling sampling;
    (void)type;
    memset(&sampling, 0, sizeof sampling);
    sampling.struct_size = sizeof sampling;
    sampling.temperature = temperature;
    sampling.top_k = top_k;
    sampling.top_p = top_p;
    sampling.min_p = min_p;
    sampling.repetition_penalty = repetition_penalty;
    sampling.seed = (uint64_t)seed;
    succeeded(env, edge_session_set_sampling(to_session(session), &sampling));
}

struct listener {
    JNIEnv* env;
    jobject object;
    jmethodID method;
};

/* Hands a piece of text to Java; a pending exception ends the generation. */
static int32_t take_text(const char* utf8, size_t n_bytes, void* user) {
    struct listener* to = (struct listener*)user;
    jbyteArray bytes = new_bytes(to->env, utf8, n_bytes);
    jboolean go_on = JNI_FALSE;
    if (bytes) {
        go_on = (*to->env)->CallBooleanMethod(to->env, to->object, to->method, bytes);
        (*to->env)->DeleteLocalRef(to->env, bytes);
    }
    return (*to->env)->ExceptionCheck(to->env) || !go_on;
}

static void free_stops(char** stops, jsize n_stops) {
    jsize i;
    for (i = 0; i < n_stops; ++i) free(stops[i]);
    free(stops);
}

/* Copies of the stop texts; NULL with an exception pending. */
static char** copy_stops(JNIEnv* env, jobjectArray texts, jsize n_stops) {
    jsize i;
    char** stops = (char**)allocate(env, (size_t)n_stops * sizeof *stops);
    if (!stops) return NULL;
    for (i = 0; i < n_stops; ++i) {
        jbyteArray text = (jbyteArray)(*env)->GetObjectArrayElement(env, texts, i);
        stops[i] = copy_text(env, text, NULL);
        (*env)->DeleteLocalRef(env, text);
        if (!stops[i]) {
            free_stops(stops, i);
            return NULL;
        }
    }
    return stops;
}

FUNCTION(jint, sessionGenerate)(JNIEnv* env, jclass type, jlong session, jintArray prompt, jint max_tokens, jobjectArray texts,
                                jobject object) {
    const jsize n_stops = (*env)->GetArrayLength(env, texts);
    const size_t n_prompt = (size_t)(*env)->GetArrayLength(env, prompt);
    int32_t n_generated = 0;
    edge_status status;
    char** stops;
    jint* tokens;
    struct listener to;
    (void)type;
    to.env = env;
    to.object = object;
    to.method = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, object), "onBytes", "([B)Z");
    if (!to.method) return 0;
    stops = copy_stops(env, texts, n_stops);
    if (!stops) return 0;
    tokens = (*env)->GetIntArrayElements(env, prompt, NULL);
    if (tokens) {
        status = edge_session_generate(to_session(session), (const int32_t*)tokens, n_prompt, max_tokens,
                                       (const char* const*)stops, (size_t)n_stops, take_text, &to, &n_generated);
        (*env)->ReleaseIntArrayElements(env, prompt, tokens, JNI_ABORT);
        succeeded(env, status);
    }
    free_stops(stops, n_stops);
    return n_generated;
}
