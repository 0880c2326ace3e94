"""How all pictures of a report look, whatever the user's own matplotlib settings are."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

__all__ = ["COLOURS", "MARKERS", "drawing_style", "plain", "save", "unit"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which stay apart for colour-blind eyes; every series has a marker of its own as well."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DPI = 130
_MOST_CHARACTERS = 40


@contextmanager
def drawing_style() -> Iterator[None]:
    """matplotlib's own defaults but for a few; names are text, never formulas."""
    ours = {"text.parse_math": False, "font.size": 10.0, "axes.titlesize": 11.0, "axes.axisbelow": True}
    with style.context(["default", ours]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def plain(text: str) -> str:
    """A name as one short line of printable characters."""
    line = "".join(c if c.isprintable() and not "\ud800" <= c <= "\udfff" else " " for c in text)
    return line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 1] + "…"


def unit(sizes: Sequence[int]) -> tuple[float, str]:
    """Bytes in the unit that suits these sizes, and its name."""
    return (1e6, "MB (1e6 bytes)") if max(sizes) >= 10**6 else (1e3, "kB (1e3 bytes)")


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG; the same figures give the same bytes."""
    figure.savefig(path, dpi=_DPI, facecolor="white", metadata={"Software": None})
