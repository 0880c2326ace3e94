"""The picture of speed: tokens per second over mapped bytes, and perplexity over tokens per second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from edgesdk.report.style import COLOURS, MARKERS, drawing_style, plain, save, unit

__all__ = ["best_per_level", "draw_speeds"]


def best_per_level(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each level the measurement that decodes fastest, smallest level first."""
    best: dict[int, Mapping[str, Any]] = {}
    for row in results:
        held = best.get(row["level"])
        if held is None or _speed(row) > _speed(held):
            best[row["level"]] = row
    return [best[level] for level in sorted(best)]


def draw_speeds(devices: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the picture. devices: entries of what `edgesdk profile --json` prints."""
    drawn = [curve for device in devices for curve in _curves(device)]
    scale, byte_unit = unit([row["mapped_bytes"] for _, rows in drawn for row in rows] or [1])
    with drawing_style():
        figure = Figure(figsize=(10.5, 5.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        measured = False
        for i, (_, rows) in enumerate(drawn):
            style = {
                "color": COLOURS[i % len(COLOURS)],
                "marker": MARKERS[i % len(MARKERS)],
                "markersize": 6,
                "linewidth": 1.4,
                "capsize": 3,
            }
            speeds, reach = [_speed(row) for row in rows], [_speed(row) * _spread(row) / 2 for row in rows]
            left.errorbar([row["mapped_bytes"] / scale for row in rows], speeds, yerr=reach, **style)
            known = [n for n, row in enumerate(rows) if row["perplexity"] is not None]
            measured = measured or bool(known)
            right.errorbar(
                [speeds[n] for n in known],
                [rows[n]["perplexity"] for n in known],
                xerr=[reach[n] for n in known],
                **style,
            )
        left.set(xlabel=f"mapped bytes, {byte_unit}", ylabel="decoding, tokens per second")
        left.set_ylim(bottom=0)
        right.set(xlabel="decoding, tokens per second", ylabel="perplexity")
        if not measured:
            right.text(0.5, 0.5, "quality not measured", transform=right.transAxes, ha="center", color="#555555")
        for axes in (left, right):
            axes.grid(color="#dddddd", linewidth=0.6)
        legend = figure.legend(left.containers, ["?"] * len(drawn), loc="outside lower center", ncols=4, frameon=False)
        for label, (name, _) in zip(legend.get_texts(), drawn, strict=True):
            label.set_text(name)  # handed to `legend`, a name that begins with _ would be left out
        save(figure, path)


def _curves(device: Mapping[str, Any]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """A curve per backend, and its name."""
    backends = dict.fromkeys(row["backend"] for row in device["results"])
    for backend in backends:
        rows = [row for row in device["results"] if row["backend"] == backend]
        yield plain(device["name"]) + f", {backend}" * (len(backends) > 1), best_per_level(rows)


def _speed(row: Mapping[str, Any]) -> float:
    return float(row["decode_tokens_per_s"]["p50"])


def _spread(row: Mapping[str, Any]) -> float:
    return float(row["decode_tokens_per_s"]["spread"])
