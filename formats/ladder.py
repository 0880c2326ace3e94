"""The ladder as plain data: the one schema that `edgesdk inspect --json` and the demo's levels.json share."""

from __future__ import annotations

from typing import Any

from edgesdk.formats.reader import Artifact

__all__ = ["LADDER_SCHEMA", "level_table"]

LADDER_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Levels of an .edge artifact, smallest first",
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["index", "rate", "mapped_bytes", "file_bytes", "ppl", "kl", "gave_up"],
        "additionalProperties": False,
        "properties": {
            "index": {"type": "integer", "minimum": 0},
            "rate": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
            "mapped_bytes": {"type": "integer", "minimum": 1},
            "file_bytes": {"type": "integer", "minimum": 1},
            "ppl": {"type": ["number", "null"], "minimum": 1},
            "kl": {"type": ["number", "null"]},
            "gave_up": {"type": "object"},
        },
    },
}


def level_table(artifact: Artifact) -> list[dict[str, Any]]:
    """One row per level, smallest first, as LADDER_SCHEMA describes it.

    rate is the share of block weight bytes given up; sizes are bytes; ppl is the perplexity and kl the nats per token
    measured through the engine, None where the level was not measured; gave_up says what is missing against the full
    level. Levels that a cut file no longer holds are listed too: their file_bytes exceed the file.
    """
    return [
        {
            "index": level.index,
            "rate": level.rate,
            "mapped_bytes": level.mapped_bytes,
            "file_bytes": level.file_bytes,
            "ppl": level.perplexity,
            "kl": level.kl,
            "gave_up": dict(level.gave_up),
        }
        for level in artifact.levels
    ]
