// Artifacts that are damaged at random, and what is done with those that load all the same.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "edge.h"

namespace edge_test {

// Changes of a file's structure: any number that a header can hold in any of its places, any bit of the tables and weights.
class Damage {
public:
    explicit Damage(uint32_t seed) : random_(seed) {}

    // A file made from another one by a few changes. One without a readable header loses bits only.
    std::string apply(const std::string& file);

    // The same for a JSON text; one that cannot be read loses bits only.
    std::string apply_to_json(const std::string& text);

private:
    using Json = nlohmann::json;

    uint32_t below(size_t n) { return n == 0 ? 0 : static_cast<uint32_t>(random_() % n); }
    void flip(std::string& bytes, uint32_t n);
    void change_header(std::string& header);
    void change_tensor(const std::string& header, std::string& data);
    void change(Json& place, int depth);
    Json other(const Json& value);

    std::mt19937 random_;
};

// Loads a file without its hashes, which would refuse what is to be tried, and runs it at every level that it says it has.
// What edge_model_load answered; ends the program where an answer makes no sense.
edge_status load_and_run(const std::string& path);

}  // namespace edge_test
