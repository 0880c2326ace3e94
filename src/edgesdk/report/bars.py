"""The picture of operations: of each level how the time of a decoded token is made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from edgesdk.report.speeds import best_per_level
from edgesdk.report.style import COLOURS, drawing_style, plain, save

__all__ = ["draw_operations"]

_OTHER = "other"


def draw_operations(devices: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the picture: a bar per level, at the setting that decodes it fastest, in pieces of its operations.

    devices: entries of what `edgesdk profile --ops --json` prints; those without operations are left out
    """
    timed = [(device["name"], [row for row in device["results"] if row["ops"] is not None]) for device in devices]
    drawn = [(plain(name), best_per_level(rows)) for name, rows in timed if rows]
    n_bars = sum(len(rows) for _, rows in drawn)
    names = [op["op"] for op in drawn[0][1][0]["ops"]["decode"]["ops"]] + [_OTHER]
    with drawing_style():
        figure = Figure(figsize=(10.5, 1.2 + 0.9 * len(drawn) + 0.3 * n_bars), layout="constrained")
        heights = [len(rows) + 1 for _, rows in drawn]
        panels = figure.subplots(len(drawn), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, rows) in zip(panels, drawn, strict=True):
            pieces = [_pieces(row["ops"]["decode"]) for row in rows]
            labels = [f"level {row['level']}, {row['threads']} thread{'s' * (row['threads'] > 1)}" for row in rows]
            begins = [0.0] * len(rows)
            for i, op in enumerate(names):
                widths = [piece.get(op, 0.0) for piece in pieces]
                axes.barh(
                    range(len(rows)), widths, left=begins, height=0.72, color=COLOURS[i % len(COLOURS)],
                    hatch="///" if i >= len(COLOURS) else None, edgecolor="white", linewidth=0.5,
                )  # fmt: skip
                begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
            axes.set_yticks(range(len(rows)), labels)
            axes.set_title(name, loc="left")
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        panels[-1].set_xlabel("decoding, microseconds a token")
        figure.legend(panels[0].containers, names, loc="outside lower center", ncols=6, frameon=False)
        save(figure, path)


def _pieces(times: Mapping[str, Any]) -> dict[str, float]:
    """Microseconds a token of each operation."""
    pieces = {op["op"]: op["seconds"] / times["tokens"] * 1e6 for op in times["ops"]}
    pieces[_OTHER] = max(0.0, times["seconds"] / times["tokens"] * 1e6 - sum(pieces.values()))
    return pieces
