"""Where benchmarks find real text: EDGE_TEXT_DIR, a folder with WikiText-2's raw test split (wiki.test.raw)."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["evaluation_text"]

_DEFAULT = Path(__file__).parents[2] / "shared" / "data" / "wikitext-2"


def evaluation_text() -> Path:
    """The text that quality is measured on; it is never calibrated on. Exits with a hint when it is not there."""
    folder = Path(os.environ.get("EDGE_TEXT_DIR", _DEFAULT))
    path = folder / "wiki.test.raw"
    if not path.is_file():
        raise SystemExit(
            f"error: no {path.name} in {folder}\n"
            "hint: set EDGE_TEXT_DIR to a folder with WikiText-2's raw test split (the archive wikitext-2-raw-v1)"
        )
    return path
