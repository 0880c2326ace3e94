"""Sources come from the internet: what Python raises for values that nobody expects there becomes a ModelError."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesdk.errors import ModelError

__all__ = ["MAX_TOKENS", "malformed", "read_json"]

MAX_TOKENS = 1 << 24
"""Of a vocabulary, as the engine reads it: an id in a few bytes of JSON must not make a reader allocate."""

_MAX_JSON_BYTES = 256 << 20  # the largest tokenizer.json has 40 MB


@contextmanager
def malformed(what: object) -> Iterator[None]:
    """Around code that reads values of a source as what they should be: text as text, a list as a list."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ModelError(f"{what} is malformed: {type(error).__name__}: {str(error)[:300]}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises ModelError."""
    try:
        if (n_bytes := path.stat().st_size) > _MAX_JSON_BYTES:
            raise ModelError(f"{path} has {n_bytes} bytes, expected at most {_MAX_JSON_BYTES}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a JSON {type(content).__name__}, expected an object")
    return content
