"""Measured sizes that are no artifact of the report: files of other engines, or levels measured on another text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.errors import UsageError

__all__ = ["Point", "Series", "read_series"]

_HINT = 'it is a list of {"name", "mapped_bytes", "file_bytes", "perplexity", "kl", "text"}, kl and text optional'


@dataclass(frozen=True)
class Point:
    """One measured size. kl in nats per token, None where not measured."""

    name: str
    mapped_bytes: int
    file_bytes: int
    perplexity: float
    kl: float | None


@dataclass(frozen=True)
class Series:
    """Points under one name. joined: they are the levels of one file; text: what they were measured on, "" unknown."""

    name: str
    points: tuple[Point, ...]
    joined: bool
    text: str


def read_series(name: str, path: Path) -> Series:
    """Reads a list of points, or what `edgesdk eval --json` printed. Raises UsageError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read `{path}`: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"`{path}` is not JSON: {error}", hint=_HINT) from error
    evaluated = isinstance(value, dict) and isinstance(value.get("levels"), list)
    entries = value["levels"] if evaluated else value
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"`{path}` holds no list of points", hint=_HINT)
    if evaluated:
        points = [_point({"name": f"level {e.get('index')}", "perplexity": e.get("ppl"), **e}, path) for e in entries]
        texts = {Path(str(value.get("text") or "")).name}
    else:
        points = [_point(entry, path) for entry in entries]
        texts = {str(entry.get("text") or "") for entry in entries}
    points.sort(key=lambda point: point.mapped_bytes)
    return Series(name, tuple(points), evaluated, ", ".join(sorted(texts)))


def _point(entry: Mapping[str, Any], path: Path) -> Point:
    name, kl = entry.get("name"), entry.get("kl")
    sizes = [_size(entry.get(field)) for field in ("mapped_bytes", "file_bytes")]
    numbers = [_number(entry.get("perplexity")), _number(kl)]
    legal = isinstance(name, str) and all(sizes) and (numbers[0] or 0) > 0 and (kl is None or numbers[1] is not None)
    if not legal:
        raise UsageError(f"`{path}` has a point {json.dumps(entry)[:200]}", hint=_HINT)
    return Point(str(name), sizes[0], sizes[1], numbers[0] or 0.0, numbers[1])


def _size(value: Any) -> int:
    """Bytes, 0 for what is no size."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 53 else 0


def _number(value: Any) -> float | None:
    """A finite number, None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
