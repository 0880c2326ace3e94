"""Baseline: round to nearest on a uniform grid; the scale search does not look at activations."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesdk.cloud.quantize.grid import Grid, uniform_grid

__all__ = ["quantize"]


def quantize(
    weight: Tensor, moment: Tensor, group: int, damping: float, *, columns_sorted: bool, bits: int = 4
) -> tuple[Tensor, Tensor, Grid]:
    """Quantizes one weight; only `weight`, `group` and `bits` are used. Shapes as in gptq.quantize."""
    grid = uniform_grid(bits)
    rows, columns = weight.shape
    codes = torch.empty((rows, columns), dtype=torch.uint8)
    scales = torch.empty((rows, -(-columns // group)))
    for g, begin in enumerate(range(0, columns, group)):
        part = weight[:, begin : begin + group]
        scales[:, g] = grid.best_scales(part, torch.ones(part.shape[1]))
        codes[:, begin : begin + group] = grid.codes(part / scales[:, g : g + 1]).to(torch.uint8)
    return codes, scales, grid
