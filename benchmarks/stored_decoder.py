"""A level of an artifact as a torch decoder with dequantized weights: what the engine computes but for its integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgesdk.cloud.families.blocks import NORMS, Attention, Block, ModelConfig
from edgesdk.cloud.reference import BlockWeights, Decoder
from edgesdk.formats import Artifact
from edgesdk.formats.axes import frequency_order, head_order

__all__ = ["stored_decoder"]


def stored_decoder(path: Path, level: int, config: ModelConfig) -> Decoder:
    """config: of the source, whose block declarations the artifact shares."""
    artifact = Artifact.open(path)
    allocation = artifact.levels[level].allocation

    def load(index: int) -> BlockWeights:
        return _block_weights(artifact, level, config.blocks[index], allocation[index], config.d_model)

    embedding = torch.from_numpy(artifact.weight("embed", level))
    head = embedding if config.tied_head else torch.from_numpy(artifact.weight("head", level))
    norm = torch.from_numpy(artifact.vector("norm", level))
    return Decoder(replace(config), embedding, norm, head, load)


def _block_weights(artifact: Artifact, level: int, block: Block, kept: Sequence[int], d_model: int) -> BlockWeights:
    """The block's tensors at a level in the natural order of `reference`; sizes are the kept ones."""
    sizes = {axis.name: (size, axis.quantum) for axis, size in zip(block.axes, kept, strict=True)}

    def vector(name: str) -> Tensor:
        return torch.from_numpy(artifact.vector(f"{block.name}.{name}", level))

    def order(axis: tuple[str, int] | None) -> np.ndarray:
        if axis is None:
            return np.arange(d_model)
        size, quantum = sizes[axis[0]]
        if axis[0] == "width":
            return np.arange(size)
        return head_order(axis[1], size, quantum, paired=axis[0] == "qk")

    norms = [role for role in NORMS if role in block.sources and (role != "post_norm" or any(kept))]
    weights = {role: vector(role) for role in norms}
    for weight in block.weights:
        rows, columns = order(weight.rows), order(weight.columns)
        natural = torch.zeros((len(rows), len(columns)))
        if natural.numel():
            stored = torch.from_numpy(artifact.weight(f"{block.name}.{weight.role}", level))
            natural[torch.from_numpy(rows)[:, None], torch.from_numpy(columns)] = stored
        row_bias = vector(f"{weight.role}.bias")
        if len(row_bias):
            bias = torch.empty_like(row_bias)
            bias[torch.from_numpy(rows)] = row_bias
            weights[f"{weight.role}_bias"] = bias if weight.role in ("gate", "up") else bias.unflatten(0, (-1, kept[0]))
        if isinstance(block, Attention):
            axis = weight.rows or weight.columns
            assert axis is not None
            natural = natural.unflatten(0 if weight.rows else 1, (axis[1], sizes[axis[0]][0]))
        weights[weight.role] = natural
    if isinstance(block, Attention):
        stored = vector("inv_freq")
        frequencies = torch.empty_like(stored)
        if len(stored):
            frequencies[torch.from_numpy(frequency_order(block.n_kv_heads, *sizes["qk"]))] = stored
        weights["inv_freq"] = frequencies.reshape(block.n_kv_heads, kept[0] // 2)
    bias = vector("bias")
    return {**weights, "bias": bias} if len(bias) else weights
