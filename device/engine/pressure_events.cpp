#include "pressure_events.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "memory.h"

namespace edge {
namespace {

// Half of a fifth of a second in which some task waits; without privileges the window must be of whole two seconds.
constexpr char kStall[] = "some 200000 2000000";

std::string read_all(int file) {
    char text[512];
    const ssize_t n = pread(file, text, sizeof text, 0);
    return n > 0 ? std::string(text, static_cast<size_t>(n)) : std::string();
}

bool write_all(int file, const std::string& text) {
    return write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

}  // namespace

PressureEvents::PressureEvents(const std::string& root) : wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    add_psi(root + "/proc/pressure/memory");
    for (const MemoryGroup& group : memory_groups(root)) {
        const size_t n_before = sources_.size();
        group.v2 ? add_v2(group.folder) : add_v1(group.folder);
        if (sources_.size() > n_before) break;  // the innermost that is visible
    }
}

PressureEvents::~PressureEvents() {
    for (const Source& source : sources_) close(source.file);
    for (const int file : kept_open_) close(file);
    if (wake_ >= 0) close(wake_);
}

void PressureEvents::add(Source source, const std::string& name) {
    sources_.push_back(std::move(source));
    names_ += (names_.empty() ? "" : ", ") + name;
}

void PressureEvents::add_psi(const std::string& path) {
    const int file = open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return;
    if (write(file, kStall, sizeof kStall) < 0) {  // a kernel without triggers
        close(file);
        return;
    }
    add({file, POLLPRI, false, ""}, "psi");
}

void PressureEvents::add_v1(const std::string& folder) {
    const int level = open((folder + "/memory.pressure_level").c_str(), O_RDONLY | O_CLOEXEC);
    const int control = open((folder + "/cgroup.event_control").c_str(), O_WRONLY | O_CLOEXEC);
    const int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const bool registered = level >= 0 && control >= 0 && event >= 0 &&
                            write_all(control, std::to_string(event) + " " + std::to_string(level) + " medium");
    if (control >= 0) close(control);
    if (registered) {
        kept_open_.push_back(level);
        add({event, POLLIN, true, ""}, "cgroup v1");
        return;
    }
    if (level >= 0) close(level);
    if (event >= 0) close(event);
}

// Counters of how often the group met its limits.
void PressureEvents::add_v2(const std::string& folder) {
    const int file = open((folder + "/memory.events").c_str(), O_RDONLY | O_CLOEXEC);
    if (file >= 0) add({file, POLLPRI, false, read_all(file)}, "cgroup v2");
}

bool PressureEvents::has_news(Source& source) {
    if (source.is_counter) {
        uint64_t n = 0;
        return read(source.file, &n, sizeof n) == static_cast<ssize_t>(sizeof n) && n > 0;
    }
    if (source.text.empty()) return true;  // psi: the event itself is the news
    std::string text = read_all(source.file);
    std::swap(text, source.text);
    return text != source.text;
}

bool PressureEvents::wait(int milliseconds) {
    std::vector<pollfd> files;
    for (const Source& source : sources_) files.push_back({source.file, source.events, 0});
    files.push_back({wake_, POLLIN, 0});
    if (poll(files.data(), static_cast<nfds_t>(files.size()), milliseconds) <= 0) return false;
    bool pressed = false;
    for (size_t i = sources_.size(); i-- > 0;) {
        const bool is_gone = (files[i].revents & (POLLERR | POLLNVAL)) != 0 && !(files[i].revents & sources_[i].events);
        if (is_gone) {
            close(sources_[i].file);
            sources_.erase(sources_.begin() + static_cast<std::ptrdiff_t>(i));
        } else if (files[i].revents & sources_[i].events) {
            pressed = has_news(sources_[i]) || pressed;
        }
    }
    return pressed;
}

void PressureEvents::wake() {
    const uint64_t one = 1;
    if (write(wake_, &one, sizeof one) < 0) return;  // it is awake as it is
}

}  // namespace edge
