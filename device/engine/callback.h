// Calls into the caller's code. What is thrown there ends here, before it meets a frame of the engine.
#pragma once
#include <exception>
#include <string>
#include <string_view>

#include "errors.h"

namespace edge {

// Whether the caller wants more text. An exception of its callback becomes an Error that is the caller's fault.
inline bool wants_more(edge_text_callback callback, std::string_view text, void* user) {
    if (!callback) return true;
    std::string thrown = "the callback threw an exception";
    try {
        return callback(text.data(), text.size(), user) == 0;
    } catch (const std::exception& error) {
        thrown += std::string(": ") + error.what();
    } catch (...) {
        thrown += " of its own type";
    }
    throw Error{EDGE_CALLBACK_FAILED, thrown + "\nhint: catch it in the callback, and return 1 to end the answer there"};
}

}  // namespace edge
