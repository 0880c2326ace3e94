"""The picture of the quality benchmark: perplexity against mapped megabytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from verdicts import Point

__all__ = ["draw"]

_COLOURS = ("#0b6e99", "#c4520a", "#5b8c2a", "#8a4fa3", "#7a6a53", "#b03060")
_PEER_COLOUR = "#444444"
_LINE_POINTS = 10.5  # height of a label's line


def draw(path: Path, peers: Sequence[Point], ladders: Sequence[Sequence[Point]], source: float, title: str) -> None:
    """Writes a PNG: ladders as curves, the peer's files as labelled crosses, the float source as a line."""
    figure, axes = plt.subplots(figsize=(10, 6.5), dpi=130)
    for levels, colour in zip(ladders, _COLOURS, strict=False):
        points = sorted(levels, key=lambda level: level.mapped_bytes)
        x, y = [p.mapped_bytes / 1e6 for p in points], [p.score.perplexity for p in points]
        axes.plot(x, y, "o-", color=colour, markersize=4, linewidth=1.6, label=f"{points[0].ladder} (one file)")
    if peers:
        x, y = [p.mapped_bytes / 1e6 for p in peers], [p.score.perplexity for p in peers]
        axes.plot(x, y, "x", color=_PEER_COLOUR, markersize=7, markeredgewidth=1.8, label="llama.cpp (a file each)")
    axes.axhline(source, color="#999999", linestyle="--", linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.1, y=0.08)
    axes.annotate(
        f"float32 source: {source:.2f}",
        (axes.get_xlim()[0], source),
        (4, 3),
        textcoords="offset points",
        fontsize=8,
        color="#666666",
    )
    axes.set_xlabel("mapped bytes / 10^6: weights (for our levels the tokenizer, too)")
    axes.set_ylabel("perplexity (log scale, lower is better)")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(True, which="major", alpha=0.25)
    axes.legend(fontsize=9, loc="upper right")
    figure.tight_layout()
    _label(figure, axes, peers)
    figure.savefig(path)
    plt.close(figure)


def _label(figure: plt.Figure, axes: plt.Axes, peers: Sequence[Point]) -> None:
    """Names beside the crosses, moved up until they are clear of one another, with a thin line back to the cross."""
    taken: list[tuple[float, float, float]] = []  # left, right, bottom, in points
    scale = 72 / figure.dpi
    names: dict[tuple[float, float], list[str]] = {}  # formats that fall back to the same types are one point
    for peer in sorted(peers, key=lambda p: (p.mapped_bytes, p.score.perplexity)):
        names.setdefault((peer.mapped_bytes / 1e6, peer.score.perplexity), []).append(peer.name)
    for at, same in names.items():
        name = " = ".join(same)
        x, up = (value * scale for value in axes.transData.transform(at))
        left, bottom = x + 6, up + 4
        right = left + 6 * len(name)
        while any(left < b and right > a and abs(bottom - y) < _LINE_POINTS for a, b, y in taken):
            bottom += 2
        taken.append((left, right, bottom))
        line = {"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.7} if bottom > up + 6 else None
        axes.annotate(
            name,
            at,
            (left - x, bottom - up),
            textcoords="offset points",
            fontsize=8,
            color=_PEER_COLOUR,
            arrowprops=line,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        )
