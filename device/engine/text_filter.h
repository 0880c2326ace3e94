// Holds text back until it is certain that no stop string begins in it.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace edge {

class TextFilter {
public:
    // Empty stop strings are ignored.
    explicit TextFilter(std::vector<std::string> stops);

    // Takes whole characters; appends to `out` what may be shown. Returns true when a stop string was met: text before the
    // earliest one is in `out`, and nothing more may be pushed.
    bool push(std::string_view text, std::string& out);

    // The end without a stop string: what was held back is shown after all.
    void finish(std::string& out);

    size_t n_held_bytes() const { return held_.size(); }

private:
    std::vector<std::string> stops_;
    std::string held_;
};

}  // namespace edge
