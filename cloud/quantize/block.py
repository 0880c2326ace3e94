"""Quantizes the weights of a sorted block into the tensors of the artifact, axes in file order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgesdk.cloud.config import QuantizeConfig
from edgesdk.cloud.families.blocks import NORMS, Attention, Block, Ssm, Weight
from edgesdk.cloud.pack import QuantizedWeight
from edgesdk.cloud.quantize import METHODS
from edgesdk.cloud.quantize.grid import Grid
from edgesdk.cloud.reference import BlockWeights
from edgesdk.cloud.sizes import weight_group
from edgesdk.formats.axes import frequency_order, head_order
from edgesdk.formats.tiles import CODEBOOK_BITS

__all__ = [
    "block_vectors",
    "dequantized",
    "file_order",
    "moment_of",
    "multiplied",
    "natural_order",
    "quantize_weight",
    "to_file",
]

_MOMENT_OF = {"o": "z", "down": "hidden", "out": "hidden"}  # the others read the normed input


def moment_of(role: str) -> str:
    """Name of the moment of what a weight reads."""
    return _MOMENT_OF.get(role, "input")


def quantize_weight(
    block: Block,
    role: str,
    weights: BlockWeights,
    moments: Mapping[str, Tensor],
    settings: QuantizeConfig,
    bits: int = 4,
) -> QuantizedWeight:
    """Quantizes one weight of a sorted block to 2, 3, 4 or 6 bits.

    The moments are those of the float model, so that weights do not depend on each other and the result is the same
    on one machine or many.
    """
    weight = next(w for w in block.weights if w.role == role)
    matrix = file_order(block, weight, weights[role])
    moment = moments[moment_of(role)]
    if weight.columns is not None and weight.columns[0] != "width":
        order = torch.from_numpy(_order(block, weight.columns, paired=False))
        moment = moment[order][:, order]
    group = weight_group(block, role, settings.group)
    codes, scales, grid = METHODS[settings.method](
        matrix, moment, group, settings.damping, columns_sorted=weight.columns is not None, bits=bits
    )
    return to_file(codes, scales, grid, bits, group, output_error(matrix, moment, codes, scales, grid, group))


def output_error(matrix: Tensor, moment: Tensor, codes: Tensor, scales: Tensor, grid: Grid, group: int) -> float:
    """tr(E M E^T): the mean squared error of what a quantized weight computes, summed over its rows."""
    error = matrix - multiplied(grid.decode(codes.long()), scales, group)
    return float(((error @ moment) * error).sum())


def to_file(
    codes: Tensor, scales: Tensor, grid: Grid, bits: int, group: int, error: float | None = None
) -> QuantizedWeight:
    """Codes, scales and grid of a method as the file holds them: at 8 bits codes are the bytes of int8 values."""
    stored = codes.numpy()
    if bits == 8:
        stored = (codes.to(torch.int16) - grid.reach).to(torch.int8).numpy().view(np.uint8)
    codebook = grid.values if bits in CODEBOOK_BITS else None
    return QuantizedWeight(stored, scales.half().numpy(), bits, group, codebook, error)


def dequantized(block: Block, weight: Weight, quantized: QuantizedWeight) -> Tensor:
    """The stored weight in float32 and in the natural order of `reference`."""
    scales = torch.from_numpy(quantized.scales).float()
    return natural_order(block, weight, multiplied(torch.from_numpy(quantized.values()), scales, quantized.group))


def multiplied(values: Tensor, scales: Tensor, group: int) -> Tensor:
    """values (rows, columns) times the scale (rows, n_groups) of their group, float32."""
    return values * scales.repeat_interleave(group, dim=1)[:, : values.shape[1]]


def natural_order(block: Block, weight: Weight, matrix: Tensor) -> Tensor:
    """The inverse of `file_order`."""
    natural = torch.empty_like(matrix)
    if weight.rows is not None and weight.rows[0] != "width":
        natural[torch.from_numpy(_order(block, weight.rows, paired=weight.rows[0] == "qk"))] = matrix
        return natural.unflatten(0, (weight.rows[1], -1))
    if weight.columns is not None and weight.columns[0] != "width":
        natural[:, torch.from_numpy(_order(block, weight.columns, paired=False))] = matrix
        return natural.unflatten(1, (weight.columns[1], -1))
    return matrix


def block_vectors(block: Block, weights: BlockWeights) -> dict[str, np.ndarray[Any, Any]]:
    """Norm gains, row biases and what else a block keeps in float, in file order."""
    out: dict[str, np.ndarray[Any, Any]] = {role: weights[role].numpy() for role in NORMS if role in weights}
    if isinstance(block, Attention):
        quantum = next(axis.quantum for axis in block.axes if axis.name == "qk")
        order = frequency_order(block.n_kv_heads, block.head_dim, quantum)
        out["inv_freq"] = weights["inv_freq"].flatten().numpy()[order]
        for role, heads in (("q", block.n_heads), ("k", block.n_kv_heads)):
            if f"{role}_bias" in weights:
                out[f"{role}_bias"] = (
                    weights[f"{role}_bias"].flatten().numpy()[_order(block, ("qk", heads), paired=True)]
                )
    elif isinstance(block, Ssm):
        out |= _ssm_vectors(block, weights)
    else:
        out |= {role: weights[role].numpy() for role in ("gate_bias", "up_bias") if role in weights}
    return out


def _ssm_vectors(block: Ssm, weights: BlockWeights) -> dict[str, np.ndarray[Any, Any]]:
    """What a mixer keeps in float; rows along an axis are in file order."""
    out = {"dt": weights["dt"].half().flatten().numpy()}
    out |= {name: weights[name].numpy() for name in ("dt_bias", "a", "d")}
    for weight in block.weights:
        for name in (f"{weight.role}_bias", f"{weight.role}_conv", *(("gain",) if weight.role == "x" else ())):
            if weight.rows is not None and name in weights:
                out[name] = weights[name].flatten(0, 1).numpy()[_order(block, weight.rows, paired=False)]
    return out


def file_order(block: Block, weight: Weight, natural: Tensor) -> Tensor:
    """A weight in natural order (see `reference`) as (rows, columns) with head axes quantum-major, as in the file."""
    if weight.rows is not None and weight.rows[0] != "width":
        order = _order(block, weight.rows, paired=weight.rows[0] == "qk")
        return natural.flatten(0, 1)[torch.from_numpy(order)]
    if weight.columns is not None and weight.columns[0] != "width":
        return natural.flatten(1)[:, torch.from_numpy(_order(block, weight.columns, paired=False))]
    return natural.contiguous()


def _order(block: Block, axis: tuple[str, int], *, paired: bool) -> np.ndarray[Any, np.dtype[np.int64]]:
    declared = next(a for a in block.axes if a.name == axis[0])
    return head_order(axis[1], declared.size, declared.quantum, paired=paired)
