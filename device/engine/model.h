// One level of an artifact, mapped and ready; shared by the sessions that run it.
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "artifact.h"
#include "mapping.h"
#include "select.h"
#include "tokenizer.h"
#include "verifier.h"
#include "weights.h"

namespace edge {

class Model {
public:
    // Throws Error. Nothing is mapped before the header has passed and a level is chosen.
    Model(const std::string& path, const edge_load_options& options);

    const Artifact& artifact() const { return artifact_; }
    const Demand& demand() const { return demand_; }
    const Choice& choice() const { return choice_; }
    const Weights& weights() const { return weights_; }
    const Tokenizer& tokenizer() const { return tokenizer_; }
    std::string_view chat_template() const { return chat_template_; }  // empty: none
    Verifier& verifier() { return verifier_; }
    bool pin_threads() const { return pin_threads_; }
    Needs needs(int level, const Demand& demand) const;

private:
    struct File {
        explicit File(const std::string& path);
        ~File();
        File(const File&) = delete;
        File& operator=(const File&) = delete;
        int number;
    };
    Model(const File& file, const edge_load_options& options);

    Artifact artifact_;
    Demand demand_;
    bool pin_threads_;
    Choice choice_;
    Mapping mapping_;
    Verifier verifier_;  // hashes in the background while the rest is set up
    Arena vectors_;
    Weights weights_;
    Tokenizer tokenizer_;
    std::string_view chat_template_;
};

}  // namespace edge
