"""What every benchmark writes: build/bench/NAME.json, a list of figures with a ratio that is better when bigger."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Figure", "write_figures"]

BENCH = Path(__file__).parents[1] / "build" / "bench"


@dataclass(frozen=True)
class Figure:
    """One comparison. ratio: oriented so that bigger is better; target: the least ratio wanted, or None."""

    figure: str
    ours: float
    peer: float
    ratio: float
    target: float | None
    unit: str
    command: str


def write_figures(name: str, figures: Sequence[Figure]) -> Path:
    """Writes build/bench/NAME.json."""
    BENCH.mkdir(parents=True, exist_ok=True)
    path = BENCH / f"{name}.json"
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps([asdict(f) for f in figures], indent=1, allow_nan=False) + "\n", "utf-8")
    os.replace(temporary, path)
    return path
