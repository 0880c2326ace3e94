#include "text_filter.h"

#include <algorithm>
#include <utility>

namespace edge {

TextFilter::TextFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {
    std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

bool TextFilter::push(std::string_view text, std::string& out) {
    held_ += text;
    size_t stop_at = std::string::npos;
    for (const std::string& stop : stops_) stop_at = std::min(stop_at, held_.find(stop));
    if (stop_at != std::string::npos) {
        out.append(held_, 0, stop_at);
        held_.clear();
        return true;
    }
    // Keep the longest end that begins a stop string. Stop strings are whole characters too, so it is cut between characters.
    size_t n_kept = 0;
    for (const std::string& stop : stops_) {
        for (size_t n = std::min(stop.size() - 1, held_.size()); n > n_kept; --n) {
            if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) n_kept = n;
        }
    }
    out.append(held_, 0, held_.size() - n_kept);
    held_.erase(0, held_.size() - n_kept);
    return false;
}

void TextFilter::finish(std::string& out) {
    out += held_;
    held_.clear();
}

}  // namespace edge
