"""GPTQ (arXiv 2210.17323) on a grid of integers: columns in file order, errors spread over the columns after."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesdk.cloud.factor import inverse_factor
from edgesdk.cloud.quantize.grid import LINEAR, Grid, learn_grid, round_scale

__all__ = ["quantize"]

_REFINEMENTS = 2
_CHUNK_ROWS = 1024


def quantize(
    weight: Tensor,
    moment: Tensor,
    group: int,
    damping: float,
    *,
    columns_sorted: bool,
    bits: int = 4,
    grid: Grid | None = None,
) -> tuple[Tensor, Tensor, Grid]:
    """Quantizes one weight.

    weight: (rows, columns) float32; moment: (columns, columns) E[x x^T] of what it reads; group: columns per scale
    bits: 2, 3, 4 (a learned grid), 6 or 8 (a linear one)
    grid: what codes mean, where it is known; None: the linear one, or one that is learned here
    columns_sorted: the most important columns come first, as on a sorted axis
    returns codes (rows, columns) uint8, scales (rows, n_groups) float32 that are exact in float16, and the grid.

    Important columns are quantized first, so that later ones can make up for their errors. On a sorted axis that is
    the file's order, and the scales of a group are searched when it is reached, for the error that GPTQ charges then.
    On the residual axis the order follows the energies, and all scales are searched beforehand.
    """
    rows, columns = weight.shape
    energy = moment.diagonal()
    order = torch.arange(columns) if columns_sorted else torch.argsort(energy, descending=True, stable=True)
    factor = inverse_factor(moment if columns_sorted else moment[order[:, None], order], damping)
    charge = factor.diagonal().square().reciprocal()  # squared error of the i-th column costs 1 / U_ii^2
    importance = charge if columns_sorted else energy
    if grid is None:
        grid = LINEAR[bits] if bits in LINEAR else learn_grid(*_grouped(weight, importance, group), bits)
    codes = torch.empty((rows, columns), dtype=torch.uint8)
    scales = torch.empty((rows, -(-columns // group)))
    if not columns_sorted:
        for g, begin in enumerate(range(0, columns, group)):
            part = slice(begin, begin + group)
            scales[:, g] = grid.best_scales(weight[:, part], importance[part])
    work = weight[:, order]
    for begin in range(0, columns, group):
        end = min(begin + group, columns)
        block = work[:, begin:end].clone()
        if columns_sorted:
            scales[:, begin // group] = grid.best_scales(block, charge[begin:end])
        errors = torch.empty_like(block)
        for i in range(end - begin):
            column = int(order[begin + i])
            scale = scales[:, column // group]
            code = grid.codes(block[:, i] / scale)
            error = (block[:, i] - scale * grid.decode(code)) / factor[begin + i, begin + i]
            block[:, i + 1 :] -= torch.outer(error, factor[begin + i, begin + i + 1 : end])
            codes[:, column] = code.to(torch.uint8)
            errors[:, i] = error
        work[:, end:] -= errors @ factor[begin:end, end:]
    del work, factor
    damped = moment.clone()
    damped.diagonal().add_(damping * moment.diagonal().mean())
    for _ in range(_REFINEMENTS):
        _refine(weight, damped, codes, scales, group, grid)
    return codes, scales, grid


def _refine(weight: Tensor, damped: Tensor, codes: Tensor, scales: Tensor, group: int, grid: Grid) -> None:
    """One pass of coordinate descent over the groups, in place: the scale, then the codes of each column.

    damped: (columns, columns), the moment with its damping. Each gets its best value given all others. Source:
    QuantEase (arXiv 2309.01885), for the codes; the error tr(E M E^T) never grows but for the rounding of scales.
    """
    columns = weight.shape[1]
    stored = _stored(codes, scales, group, grid)
    pull = (weight - stored) @ damped  # minus half the gradient
    for g, begin in enumerate(range(0, columns, group)):
        part = slice(begin, min(begin + group, columns))
        before, inner = stored[:, part].clone(), damped[part, part]
        values = grid.decode(codes[:, part].long())
        change = (pull[:, part] * values).sum(1) / ((values @ inner) * values).sum(1).clamp_min(1e-30)
        scale = scales[:, g] = round_scale(scales[:, g] + change)
        stored[:, part] = scale[:, None] * values
        local = pull[:, part] - (stored[:, part] - before) @ inner
        for i in range(inner.shape[0]):
            column = begin + i
            code = grid.codes((stored[:, column] + local[:, i] / inner[i, i]) / scale)
            value = scale * grid.decode(code)
            local -= torch.outer(value - stored[:, column], inner[i])
            codes[:, column] = code.to(torch.uint8)
            stored[:, column] = value
        pull -= (stored[:, part] - before) @ damped[part]


def _stored(codes: Tensor, scales: Tensor, group: int, grid: Grid) -> Tensor:
    """What the codes stand for, (rows, columns) float32; codes are widened some rows at a time."""
    parts = zip(codes.split(_CHUNK_ROWS), scales.split(_CHUNK_ROWS), strict=True)
    columns = codes.shape[1]
    return torch.cat(
        [own.repeat_interleave(group, dim=1)[:, :columns] * grid.decode(part.long()) for part, own in parts]
    )


def _grouped(weight: Tensor, importance: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """(n_groups, group) weights and importances; a short last group is left out unless it is the only one."""
    width = min(group, weight.shape[1])
    whole = weight.shape[1] // width * width
    groups = weight[:, :whole].reshape(-1, width)
    return groups, importance[:whole].reshape(-1, width).repeat(weight.shape[0], 1)
