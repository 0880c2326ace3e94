"""Writes names beside points so that none lies on a point, a curve or another name, as long as there is room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from edgesdk.report.style import plain

__all__ = ["NameWriter"]

Place = tuple[int, int, str]
"""Where a name stands: points to the right and up, and which side of the name is there."""

_BESIDE: tuple[Place, ...] = ((6, 0, "left"), (-6, 0, "right"))
_AWAY: tuple[Place, ...] = tuple(
    (dx * side, height, "left" if side > 0 else "right")
    for dx, height in (
        *((4, 11), (4, 21), (14, 31), (4, -11), (14, 42), (4, -21), (24, 31), (34, 42), (24, 54), (14, -31)),
        *((44, 54), (44, 66), (24, -42), (60, 80), (34, -54), (60, 96)),
    )
    for side in (1, -1)
)
_NEAR = 11  # a name up to this high needs no line to its point
_CLEAR = 5  # pixels around points and curves
_SAMPLES = 20  # of each straight piece


class NameWriter:
    """Knows what one panel holds. The layout must be final: places are tried in pixels."""

    def __init__(self, axes: Axes, renderer: RendererAgg) -> None:
        self._axes = axes
        self._renderer = renderer
        self._taken: list[Bbox] = []
        self._names: list[Bbox] = []

    def keep_free(self, points: Sequence[tuple[float, float]], *, joined: bool) -> None:
        """Notes points, in the units of the axes, and the lines between them where they are joined."""
        if not points:
            return
        pixels = np.asarray(self._axes.transData.transform(points))
        if joined:
            share = np.linspace(0, 1, _SAMPLES, endpoint=False)[:, None, None]
            between = (pixels[:-1] + share * (pixels[1:] - pixels[:-1])).reshape(-1, 2)
            pixels = np.concatenate([between, pixels[-1:]])
        self._taken += [_around(x, y, _CLEAR) for x, y in pixels]

    def write(self, name: str, point: tuple[float, float], colour: str) -> None:
        """Writes a name at the first free place, beside its point where it can; with no place free at the first."""
        frame = self._axes.bbox
        for place in (*_BESIDE, *_AWAY):
            text, box = self._place(name, point, colour, place)
            line = self._line(point, place)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            crossed = any(spot.overlaps(other) for spot in line for other in self._names)
            if inside and not crossed and not any(box.overlaps(other) for other in self._taken):
                break
            text.remove()
        else:
            box, line = self._place(name, point, colour, _BESIDE[0])[1], []
        self._names.append(box)
        self._taken += [box, *line]

    def _place(self, name: str, point: tuple[float, float], colour: str, place: Place) -> tuple[Annotation, Bbox]:
        """The name, with a thin line to its point when it stands away from it, and the box of its letters alone."""
        dx, dy, side = place
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
        text = self._axes.annotate(
            plain(name),
            point,
            (dx, dy),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=8,
            color=colour,
            arrowprops=line if abs(dy) > _NEAR else None,
        )
        text.update_positions(self._renderer)
        return text, Text.get_window_extent(text, self._renderer)

    def _line(self, point: tuple[float, float], place: Place) -> list[Bbox]:
        """Small boxes along the line from a point to its name, none where the name stands near."""
        if abs(place[1]) <= _NEAR:
            return []
        begin = np.asarray(self._axes.transData.transform(point))
        offset = np.array(place[:2], float) * self._renderer.points_to_pixels(1.0)
        along = begin + np.linspace(0.2, 0.9, _SAMPLES)[:, None] * offset
        return [_around(x, y, 1) for x, y in along]


def _around(x: float, y: float, distance: float) -> Bbox:
    return Bbox.from_extents(x - distance, y - distance, x + distance, y + distance)
