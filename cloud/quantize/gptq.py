"""GPTQ (arXiv 2210.17323) on a learned 4-bit grid: columns in file order, errors spread over the columns after."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesdk.cloud.quantize.grid import Grid, learn_grid

__all__ = ["inverse_factor", "quantize"]


def quantize(weight: Tensor, moment: Tensor, group: int, damping: float) -> tuple[Tensor, Tensor, Grid]:
    """Quantizes one weight.

    weight: (rows, columns) float32; moment: (columns, columns) E[x x^T] of what it reads; group: columns per scale
    returns codes (rows, columns) uint8, scales (rows, n_groups) float32 that are exact in float16, and the grid.
    The scales of a group are searched when it is reached, weighted by the error that GPTQ will really charge for it.
    """
    rows, columns = weight.shape
    factor = inverse_factor(moment, damping)
    charge = factor.diagonal().square().reciprocal()  # squared error of column i costs 1 / U_ii^2
    grid = learn_grid(*_grouped(weight, charge, group))
    work = weight.clone()
    codes = torch.empty((rows, columns), dtype=torch.uint8)
    scales = torch.empty((rows, -(-columns // group)))
    for g, begin in enumerate(range(0, columns, group)):
        end = min(begin + group, columns)
        block = work[:, begin:end].clone()
        scale = grid.best_scales(block, charge[begin:end])
        errors = torch.empty_like(block)
        for i in range(end - begin):
            code = grid.codes(block[:, i] / scale)
            error = (block[:, i] - scale * grid.decode(code)) / factor[begin + i, begin + i]
            block[:, i + 1 :] -= torch.outer(error, factor[begin + i, begin + i + 1 : end])
            codes[:, begin + i] = code.to(torch.uint8)
            errors[:, i] = error
        work[:, end:] -= errors @ factor[begin:end, end:]
        scales[:, g] = scale
    return codes, scales, grid


def inverse_factor(moment: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor U of (moment + damping * mean diagonal * I)^-1 = U^T U, float32. (columns, columns)"""
    size = len(moment)
    diagonal = float(moment.diagonal().double().mean())
    damped = moment.double() + max(damping * diagonal, 1e-12) * torch.eye(size, dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True).float()


def _grouped(weight: Tensor, charge: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """(n_groups, group) weights and importances; a short last group is left out unless it is the only one."""
    width = min(group, weight.shape[1])
    whole = weight.shape[1] // width * width
    groups = weight[:, :whole].reshape(-1, width)
    return groups, charge[:whole].reshape(-1, width).repeat(weight.shape[0], 1)
