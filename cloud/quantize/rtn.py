"""Baseline: round to nearest on a uniform 4-bit grid; the scale search does not look at activations."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesdk.cloud.quantize.grid import UNIFORM, Grid

__all__ = ["quantize"]


def quantize(
    weight: Tensor, moment: Tensor, group: int, damping: float, *, columns_sorted: bool
) -> tuple[Tensor, Tensor, Grid]:
    """Quantizes one weight; Only `weight` and `group` are used. Shapes as in gptq.quantize."""
    rows, columns = weight.shape
    codes = torch.empty((rows, columns), dtype=torch.uint8)
    scales = torch.empty((rows, -(-columns // group)))
    for g, begin in enumerate(range(0, columns, group)):
        part = weight[:, begin : begin + group]
        scales[:, g] = UNIFORM.best_scales(part, torch.ones(part.shape[1]))
        codes[:, begin : begin + group] = UNIFORM.codes(part / scales[:, g : g + 1]).to(torch.uint8)
    return codes, scales, UNIFORM
