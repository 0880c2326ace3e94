"""Low-rank changes of the sorted model's matrices, W + B A (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from edgesdk.cloud.families.blocks import Block, Weight
from edgesdk.cloud.reference import BlockWeights

__all__ = ["adapter_name", "as_matrix", "with_adapters"]


def adapter_name(index: int) -> str:
    """Name of a block's adapters in a work directory."""
    return f"adapter-{index:03d}.safetensors"


def as_matrix(weight: Weight, natural: Tensor) -> Tensor:
    """A weight in natural order (see `reference`) as (rows, columns), without a copy where that is possible."""
    if natural.dim() == 2:
        return natural
    return natural.flatten(0, 1) if weight.columns is None else natural.flatten(1)


def with_adapters(block: Block, weights: BlockWeights, adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The block with changed matrices. adapters: `ROLE.a` (rank, columns) and `ROLE.b` (rows, rank) of each weight."""
    out = dict(weights)
    for weight in block.weights:
        own = weights[weight.role]
        change = adapters[f"{weight.role}.b"] @ adapters[f"{weight.role}.a"]
        out[weight.role] = own + change.view(own.shape).to(own.dtype)
    return out
