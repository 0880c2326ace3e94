"""Baseline: plain GPTQ (arXiv 2210.17323) on a uniform grid, columns in file order, as UniQL (2512.03383) has it."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesdk.cloud.factor import inverse_factor
from edgesdk.cloud.quantize.grid import Grid, uniform_grid

__all__ = ["quantize"]


def quantize(
    weight: Tensor, moment: Tensor, group: int, damping: float, *, columns_sorted: bool, bits: int = 4
) -> tuple[Tensor, Tensor, Grid]:
    """Quantizes one weight; shapes as in gptq.quantize.

    A group's scales are searched when it is reached, without looking at activations; errors are spread over later
    columns. Neither the grid nor the order of columns is adapted.
    """
    grid = uniform_grid(bits)
    rows, columns = weight.shape
    factor = inverse_factor(moment, damping)
    codes = torch.empty((rows, columns), dtype=torch.uint8)
    scales = torch.empty((rows, -(-columns // group)))
    work = weight.clone()
    for begin in range(0, columns, group):
        end = min(begin + group, columns)
        block = work[:, begin:end].clone()
        scale = grid.best_scales(block, torch.ones(end - begin))
        errors = torch.empty_like(block)
        for i in range(end - begin):
            code = grid.codes(block[:, i] / scale)
            errors[:, i] = (block[:, i] - scale * grid.decode(code)) / factor[begin + i, begin + i]
            block[:, i + 1 :] -= torch.outer(errors[:, i], factor[begin + i, begin + i + 1 : end])
            codes[:, begin + i] = code.to(torch.uint8)
        work[:, end:] -= errors @ factor[begin:end, end:]
        scales[:, begin // group] = scale
    return codes, scales, grid
