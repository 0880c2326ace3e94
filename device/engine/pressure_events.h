// What the system tells about memory of its own accord: pressure stall information, and events of the control group.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace edge {

class PressureEvents {
public:
    // Takes every source that is there; with none of them, wait() only waits. `root` is for tests.
    explicit PressureEvents(const std::string& root = "");
    ~PressureEvents();
    PressureEvents(const PressureEvents&) = delete;
    PressureEvents& operator=(const PressureEvents&) = delete;

    // True when tasks had to wait for memory since the last call; returns after `milliseconds`, or earlier then or on wake().
    bool wait(int milliseconds);
    void wake();  // from any thread

    const std::string& names() const { return names_; }  // of the sources: "psi, cgroup v1"

private:
    struct Source {
        int file;
        short events;      // of poll()
        bool is_counter;   // an eventfd, to be read
        std::string text;  // of a file of counters: the last that was seen
    };
    void add_psi(const std::string& path);
    void add_v1(const std::string& folder);
    void add_v2(const std::string& folder);
    void add(Source source, const std::string& name);
    static bool has_news(Source& source);

    int wake_ = -1;
    std::vector<Source> sources_;
    std::vector<int> kept_open_;
    std::string names_;
};

}  // namespace edge
