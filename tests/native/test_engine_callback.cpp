// Exceptions of the caller's callbacks: none passes the border, and each becomes the caller's fault.
#include <new>
#include <stdexcept>

#include "callback.h"
#include "engine_check.h"

using namespace edge;

namespace {

struct Own {};

int32_t count(const char* utf8, size_t n_bytes, void* user) {
    static_cast<std::string*>(user)->append(utf8, n_bytes);
    return static_cast<std::string*>(user)->size() < 4 ? 0 : 1;
}
int32_t throw_runtime_error(const char*, size_t, void*) { throw std::runtime_error("no more paper"); }
int32_t throw_bad_alloc(const char*, size_t, void*) { throw std::bad_alloc(); }
int32_t throw_own(const char*, size_t, void*) { throw Own{}; }
int32_t throw_status(const char*, size_t, void*) { throw Error{EDGE_BAD_HASH, "of an engine that the callback uses itself"}; }

}  // namespace

int main() {
    std::string seen;
    check(wants_more(nullptr, "abc", nullptr), "nobody listens");
    check(wants_more(count, "abc", &seen) && !wants_more(count, "d", &seen), "0 goes on, else it ends");
    check(seen == "abcd", "the text arrives: " + seen);
    struct Case {
        edge_text_callback callback;
        std::string message;
    };
    for (const Case& c : {Case{throw_runtime_error, ": no more paper"}, Case{throw_bad_alloc, ": "}, Case{throw_own, "of its own type"},
                          Case{throw_status, ": of an engine that the callback uses itself"}}) {
        std::string message;
        const edge_status status = status_of([&] { wants_more(c.callback, "abc", nullptr); }, &message);
        check(status == EDGE_CALLBACK_FAILED, c.message + ": status " + std::to_string(status));
        check(contains(message, "the callback threw an exception") && contains(message, c.message), message);
        check(contains(message, "\nhint: "), message);
    }
    return finish();
}
