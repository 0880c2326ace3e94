"""Every error that edgesdk raises on purpose.

EdgeError
├── UsageError        the caller asked for something that cannot be (unknown level, rate out of range)
├── ModelError        the source model cannot be read or compiled (unknown family, missing tensors)
├── ArtifactError     the .edge file breaks a rule of SPEC.md
│   ├── HashError       bytes differ from the hash in the header
│   ├── SignatureError  the header is not what the expected key or identity signed
│   └── TruncatedError  the file ends before the level that was asked for
├── MemoryBudgetError no level fits the memory that was granted
├── MissingExtraError an optional dependency is not installed
├── ToolchainError    the engine cannot be built for a target
├── CancelledError    generation was cancelled
├── DeviceError       a device cannot be reached, refuses, or is not what was expected
└── EngineError       the engine failed (I/O, internal)
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "CancelledError",
    "DeviceError",
    "EdgeError",
    "EngineError",
    "HashError",
    "MemoryBudgetError",
    "MissingExtraError",
    "ModelError",
    "SignatureError",
    "ToolchainError",
    "TruncatedError",
    "UsageError",
]


class EdgeError(Exception):
    """Base of all errors: what was found, what was expected, and `hint`, a way out (may be empty)."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(EdgeError):
    """The caller asked for something that cannot be."""


class ModelError(EdgeError):
    """The source model cannot be read or compiled."""


class ArtifactError(EdgeError):
    """The file breaks a rule of SPEC.md."""


class HashError(ArtifactError):
    """Bytes in the file differ from the SHA-256 in its header."""


class SignatureError(ArtifactError):
    """The header is not what the expected key or identity signed, or there is no signature."""


class TruncatedError(ArtifactError):
    """The file ends before the level that was asked for."""


class MemoryBudgetError(EdgeError):
    """No level fits the memory that was granted."""


class MissingExtraError(EdgeError):
    """An optional dependency is not installed; the hint says which extra brings it."""


class ToolchainError(EdgeError):
    """The engine cannot be built for a target: a compiler is missing or failed."""


class CancelledError(EdgeError):
    """Generation was cancelled."""


class DeviceError(EdgeError):
    """A device cannot be reached, refuses, or is not what was expected."""


class EngineError(EdgeError):
    """The engine failed in a way that is not the caller's or the file's fault."""
