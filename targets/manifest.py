"""What manifest.json of a bundle holds: its schema, the levels of the artifact, and the level that a budget means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgesdk.targets.profile import BACKENDS

__all__ = ["MANIFEST_SCHEMA", "MANIFEST_VERSION", "BundledLevel", "largest_within"]

MANIFEST_VERSION = 1

_FILE_HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_BYTES = {"type": "integer", "minimum": 1}
_TEXTS = {"type": "array", "items": {"type": "string", "minLength": 1}}
_BACKEND = {"enum": list(BACKENDS)}
MANIFEST_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "manifest.json of a bundle",
    "type": "object",
    "additionalProperties": False,
    "required": [
        *("format_version", "target", "abi", "isa_floor", "backends", "default_budget_bytes", "default_level"),
        *("limits", "artifact", "files", "notes"),
    ],
    "properties": {
        "format_version": {"const": MANIFEST_VERSION},
        "target": {"type": "string", "minLength": 1},
        "abi": {"type": "string", "pattern": "^(aarch64|x86_64)-"},
        "isa_floor": _TEXTS,
        "backends": {"type": "array", "items": _BACKEND, "minItems": 1},
        "prefill_backend": _BACKEND,
        "decode_backend": _BACKEND,
        "default_budget_bytes": _BYTES,
        "default_level": {"type": "integer", "minimum": 0},
        "limits": {
            "type": "object",
            "additionalProperties": False,
            "required": ["memory_gb_per_s", "tokens_per_s"],
            "properties": {
                "memory_gb_per_s": {"type": "number", "exclusiveMinimum": 0},
                "tokens_per_s": {"type": "array", "minItems": 1, "items": {"type": "number", "exclusiveMinimum": 0}},
            },
        },
        "artifact": {
            "type": "object",
            "additionalProperties": False,
            "required": ["path", "sha256", "file_bytes", "levels"],
            "properties": {
                "path": {"type": "string", "minLength": 1},
                "sha256": _FILE_HASH,
                "file_bytes": _BYTES,
                "levels": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["level", "rate", "file_bytes", "mapped_bytes", "total_bytes", "token_bytes"],
                        "properties": {
                            "level": {"type": "integer", "minimum": 0},
                            "rate": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
                            "file_bytes": _BYTES,
                            "mapped_bytes": _BYTES,
                            "total_bytes": _BYTES,
                            "token_bytes": _BYTES,
                        },
                    },
                },
            },
        },
        "files": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["path", "sha256", "bytes"],
                "properties": {
                    "path": {"type": "string", "minLength": 1},
                    "sha256": _FILE_HASH,
                    "bytes": {"type": "integer", "minimum": 0},
                },
            },
        },
        "notes": _TEXTS,
    },
}


@dataclass(frozen=True)
class BundledLevel:
    """A level that the artifact holds.

    file_bytes: the first bytes of the file that are enough for it; mapped_bytes: of its weights
    total_bytes: weights, cache and workspace of one session at default context; token_bytes: weights that a token reads
    """

    level: int
    rate: float
    file_bytes: int
    mapped_bytes: int
    total_bytes: int
    token_bytes: int


def largest_within(levels: Sequence[BundledLevel], budget_bytes: int) -> BundledLevel | None:
    """The largest level that a budget holds with one session, as `edgesdk.load` chooses it; None when none fits."""
    fitting = [level for level in levels if level.total_bytes <= budget_bytes]
    return max(fitting, key=lambda level: level.level, default=None)
