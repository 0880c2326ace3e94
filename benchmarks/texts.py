"""Where benchmarks find real text: EDGE_TEXT_DIR, a folder with WikiText-2's raw test split (wiki.test.raw)."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["calibration_text", "evaluation_text"]

_DEFAULT = Path(__file__).parents[2] / "shared" / "data" / "wikitext-2"


def evaluation_text() -> Path:
    """The text that quality is measured on; it is never calibrated on. Exits with a hint when it is not there."""
    return _find("test", "wiki.test.raw")


def calibration_text() -> Path:
    """Text of the same kind that is never measured on: WikiText-2's validation split, raw or with its <unk>."""
    return _find("validation", "wiki.valid.raw", "valid-v1.txt")


def _find(split: str, *names: str) -> Path:
    folder = Path(os.environ.get("EDGE_TEXT_DIR", _DEFAULT))
    for path in (folder / name for name in names):
        if path.is_file():
            return path
    raise SystemExit(
        f"error: no {' or '.join(names)} in {folder}\n"
        f"hint: set EDGE_TEXT_DIR to a folder with WikiText-2's {split} split (the archive wikitext-2-raw-v1)"
    )
