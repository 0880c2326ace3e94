"""Heat maps of an artifact: what each block keeps at each level, and the bits of each weight at one level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgesdk.report.ladders import BlockBits, Ladder
from edgesdk.report.style import drawing_style, plain, save, unit

__all__ = ["draw_bits", "draw_kept"]

_COLOURS = colormaps["cividis"].with_extremes(bad="#d9d9d9")
_ROW_INCHES = 0.19
_MOST_INCHES = 40.0  # of all rows together
_LABEL_INCHES = 0.15  # a row or column this wide has room for its name
_NUMBER_INCHES = 0.3  # a column this wide has room for a number
_BITS = (2.0, 8.0)


def draw_kept(ladder: Ladder, path: Path) -> None:
    """Rows are blocks in forward order, columns levels; the colour is the share of the block's bytes that is kept."""
    shares = np.array([level.kept for level in ladder.levels]).T
    n_rows, n_columns = shares.shape
    height, width = _rows_inches(n_rows), max(3.0, min(14.0, 0.46 * n_columns))
    top = max(1.0, float(shares.max()))
    with drawing_style():
        figure = Figure(figsize=(width + 3.2, height + 1.6), layout="constrained")
        axes = figure.subplots()
        image = _heat(axes, shares, (0.0, top), ladder.blocks, height / n_rows)
        step = max(1, round(0.4 * n_columns / width))
        scale, name = unit([level.mapped_bytes for level in ladder.levels])
        labels = [f"{one.index}\n{one.mapped_bytes / scale:.1f}" for one in ladder.levels[::step]]
        axes.set_xticks(range(0, n_columns, step), labels, fontsize=7)
        axes.set_xlabel(f"level (0 is the smallest), and what it maps in {name}")
        axes.set_title(f"{plain(ladder.label)}: % of each block's bytes at the top level that a level keeps")
        if width / n_columns >= _NUMBER_INCHES and height / n_rows >= _LABEL_INCHES:
            _write_numbers(axes, 100 * shares, 50 * top, "{:.0f}")
        bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 4.0 / height), anchor=(0.0, 1.0), pad=0.02)
        bar.set_label("share kept")
        save(figure, path)


def draw_bits(ladder: Ladder, path: Path) -> None:
    """One map per kind of block: rows are blocks in forward order, columns their weights, the colour is bits a code."""
    kinds = {kind: [block for block in ladder.bits if block.kind == kind] for kind in _kinds(ladder.bits)}
    n_rows = max(map(len, kinds.values()))
    height = _rows_inches(n_rows)
    n_columns = sum(len(blocks[0].bits) for blocks in kinds.values())
    with drawing_style():
        figure = Figure(figsize=(0.62 * n_columns + 1.5 * len(kinds) + 1.4, height + 1.7), layout="constrained")
        ratios = [len(blocks[0].bits) for blocks in kinds.values()]
        all_axes = figure.subplots(1, len(kinds), squeeze=False, width_ratios=ratios)[0]
        for axes, (kind, blocks) in zip(all_axes, kinds.items(), strict=True):
            roles = list(blocks[0].bits)
            bits = np.array([[np.nan if b.bits[role] is None else b.bits[role] for role in roles] for b in blocks])
            image = _heat(axes, bits.astype(float), _BITS, [block.block for block in blocks], height / n_rows)
            axes.set_xticks(range(len(roles)), roles)
            axes.set_title(plain(kind))
            if height / n_rows >= _LABEL_INCHES:
                _write_numbers(axes, bits.astype(float), sum(_BITS) / 2, "{:.3g}")
        figure.suptitle(f"{plain(ladder.label)}: bits of each weight's codes at level {ladder.bits_level}", fontsize=11)
        figure.supxlabel("; ".join((*_model_bits(ladder), "grey: left out at this level")), fontsize=9)
        bar = figure.colorbar(image, ax=list(all_axes), shrink=min(1.0, 4.0 / height), anchor=(0.0, 1.0), pad=0.02)
        bar.set_label("bits a code")
        save(figure, path)


def _kinds(blocks: Sequence[BlockBits]) -> list[str]:
    return list(dict.fromkeys(block.kind for block in blocks))


def _model_bits(ladder: Ladder) -> list[str]:
    return [f"{name}: {bits:.3g} bits" for name, bits in ladder.model_bits.items()]


def _rows_inches(n_rows: int) -> float:
    return max(1.6, min(_MOST_INCHES, _ROW_INCHES * n_rows))


def _heat(
    axes: Axes, values: NDArray[np.float64], limits: tuple[float, float], names: Sequence[str], row_inches: float
) -> Any:
    """Cells of `values` (rows, columns), the first row on top, rows named as far as there is room."""
    image = axes.imshow(values, cmap=_COLOURS, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    step = max(1, int(np.ceil(_LABEL_INCHES / row_inches)))
    axes.set_yticks(range(0, len(names), step), [plain(name) for name in names[::step]], fontsize=7)
    axes.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(values.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.4)
    axes.tick_params(which="both", length=0)
    return image


def _write_numbers(axes: Axes, values: NDArray[np.float64], middle: float, form: str) -> None:
    """Numbers in the cells: dark on the bright upper half of the colours, bright on the lower."""
    for (row, column), value in np.ndenumerate(values):
        known = np.isfinite(value)
        colour = "black" if not known or value > middle else "white"
        text = form.format(value) if known else "–"
        axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
