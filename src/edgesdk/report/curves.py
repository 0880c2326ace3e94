"""The picture of quality against bytes: perplexity and KL on log axes over the bytes that are mapped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edgesdk.report.ladders import Ladder
from edgesdk.report.names import NameWriter
from edgesdk.report.series import Series
from edgesdk.report.style import COLOURS, MARKERS, drawing_style, plain, save, unit

__all__ = ["Curve", "curves", "draw_quality"]

_FINE = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
_COARSE = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Measured:
    """One point of a curve. name: "" is not written."""

    n_bytes: int
    perplexity: float | None
    kl: float | None
    name: str


@dataclass(frozen=True)
class Curve:
    """What is drawn of one artifact or series."""

    label: str
    points: tuple[Measured, ...]
    joined: bool
    source_perplexity: float | None = None


@dataclass(frozen=True)
class _Spot:
    """Where a point stands in one panel, in the units of its axes."""

    x: float
    y: float
    name: str


_Panel = list[tuple[Curve, list[_Spot]]]


def curves(ladders: Sequence[Ladder], series: Sequence[Series]) -> list[Curve]:
    """One curve per artifact, the ends named by their level, and one per series, each point named unless joined."""
    found = []
    for ladder in ladders:
        ends = {0, len(ladder.levels) - 1}
        points = [
            Measured(one.mapped_bytes, one.perplexity, one.kl, f"level {one.index}" if one.index in ends else "")
            for one in ladder.levels
        ]
        found.append(Curve(ladder.label, tuple(points), True, ladder.source_perplexity))
    for one in series:
        ends = {0, len(one.points) - 1} if one.joined else set(range(len(one.points)))
        points = [
            Measured(p.mapped_bytes, p.perplexity, p.kl, p.name if i in ends else "") for i, p in enumerate(one.points)
        ]
        found.append(Curve(one.name, tuple(points), one.joined))
    return found


def draw_quality(drawn: Sequence[Curve], path: Path) -> bool:
    """Writes the picture; False, and nothing written, when no curve has a figure that a log axis can show."""
    scale, byte_unit = unit([point.n_bytes for curve in drawn for point in curve.points])
    panels = [
        [(curve, _spots(curve, scale, quantity)) for curve in drawn]
        for quantity in (attrgetter("perplexity"), attrgetter("kl"))
    ]
    if not any(spots for panel in panels for _, spots in panel):
        return False
    with drawing_style():
        figure = Figure(figsize=(10.5, 5.6), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        for axes, panel, name in (
            (left, panels[0], "perplexity (log scale)"),
            (right, panels[1], "KL to the source, nats per token (log scale)"),
        ):
            _draw_panel(axes, panel, sources=axes is left)
            axes.set(xlabel=f"mapped bytes, {byte_unit}", ylabel=name)
        figure.suptitle("Quality against bytes in memory (lower left is better)", fontsize=12)
        _draw_legend(figure, left, [plain(curve.label) for curve in drawn])
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # names are put where the layout just made leaves room
        for axes, panel in zip((left, right), panels, strict=True):
            names = NameWriter(axes, canvas.get_renderer())
            for curve, spots in panel:
                names.keep_free([(spot.x, spot.y) for spot in spots], joined=curve.joined)
                if axes is left and curve.source_perplexity is not None:
                    names.keep_free([(x, curve.source_perplexity) for x in axes.get_xlim()], joined=True)
            for i, (_, spots) in enumerate(panel):
                for spot in reversed(spots):  # what stands right of a crowd goes to the right
                    if spot.name:
                        names.write(spot.name, (spot.x, spot.y), COLOURS[i % len(COLOURS)])
        save(figure, path)
    return True


def _spots(curve: Curve, scale: float, quantity: Callable[[Measured], float | None]) -> list[_Spot]:
    """Points that have a value above 0: a log axis has no place for others."""
    values = [(point, quantity(point)) for point in curve.points]
    return [_Spot(p.n_bytes / scale, value, p.name) for p, value in values if value is not None and value > 0]


def _draw_panel(axes: Axes, panel: _Panel, *, sources: bool) -> None:
    heights = []
    for i, (curve, spots) in enumerate(panel):
        axes.plot(
            [spot.x for spot in spots],
            [spot.y for spot in spots],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.6,
            linestyle="-" if curve.joined else "none",
            linewidth=1.4,
        )
        heights += [spot.y for spot in spots]
    for level in sorted({c.source_perplexity for c, _ in panel if sources and c.source_perplexity is not None}):
        axes.axhline(level, color="#555555", linewidth=1, linestyle="--")
        axes.annotate(
            f"source {level:.2f}",
            (0.01, level),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=8,
            color="#555555",
        )
        heights.append(level)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.margins(x=0.12, y=0.12)
    if not heights:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="#555555")
        axes.set_yticks([])
        return
    axes.set_yscale("log")
    _log_ticks(axes, math.log10(max(heights) / min(heights)))


def _log_ticks(axes: Axes, decades: float) -> None:
    """Numbers that can be read off: round ones between the decades where few decades are shown."""
    if decades < 0.2:
        axes.yaxis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    else:
        subs = _FINE if decades < 0.8 else _COARSE if decades < 2.5 else (1.0,)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=20))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def _draw_legend(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    lines = axes.lines[: len(names)]
    columns = min(4, len(names))
    legend = figure.legend(lines, ["?"] * len(names), loc="outside lower center", ncols=columns, frameon=False)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)  # handed to `legend`, a name that begins with _ would be left out
