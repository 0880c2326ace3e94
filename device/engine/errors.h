// The exceptions used inside the engine. None crosses the C ABI: edge.cpp turns them into a status and a message.
#pragma once
#include "edge.h"

#include <exception>
#include <string>
#include <utility>

namespace edge {

// What was found, what was expected and, after a newline, "hint: ..." where there is a way out.
struct Error : std::exception {
    Error(edge_status status, std::string message) : status(status), message(std::move(message)) {}
    const char* what() const noexcept override { return message.c_str(); }

    edge_status status;
    std::string message;
};

// The file breaks a rule of SPEC.md.
struct ArtifactError : Error {
    explicit ArtifactError(std::string message) : Error(EDGE_BAD_ARTIFACT, std::move(message)) {}
};

// The file is sound but asks for something that this engine does not know.
struct UnsupportedError : Error {
    explicit UnsupportedError(std::string message) : Error(EDGE_UNSUPPORTED, std::move(message)) {}
};

// The caller asked for something that cannot be.
struct ArgumentError : Error {
    explicit ArgumentError(std::string message) : Error(EDGE_BAD_ARGUMENT, std::move(message)) {}
};

}  // namespace edge
