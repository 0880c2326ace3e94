"""Reorders and rotates a block's inner axes so that every prefix is a good smaller block; the function is unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgesdk.cloud.families.blocks import Attention, Block
from edgesdk.cloud.moments import Moments
from edgesdk.cloud.reference import BlockWeights

__all__ = [
    "AttentionOrder",
    "MlpOrder",
    "Order",
    "SsmOrder",
    "sort_block",
    "sort_moment",
    "sort_moments",
    "sort_weight",
]


@dataclass(frozen=True)
class MlpOrder:
    """channels: (width,) most useful first."""

    channels: Tensor


@dataclass(frozen=True)
class AttentionOrder:
    """pairs: (n_kv_heads, d / 2) RoPE pairs, most useful first; rotation: (n_kv_heads, d, d), v' = rotation^T v."""

    pairs: Tensor
    rotation: Tensor


@dataclass(frozen=True)
class SsmOrder:
    """states: (n_groups, state); channels: (n_heads, head_dim); most useful first."""

    states: Tensor
    channels: Tensor


Order = MlpOrder | AttentionOrder | SsmOrder


def sort_block(block: Block, weights: BlockWeights, order: Order) -> dict[str, Tensor]:
    """The same block with its axes in order. Dtypes are kept; rotations are done in float64.

    Where nobody else holds the weights, one after the other is let go of: one block is in memory, not two.
    """
    out = dict(weights)
    del weights
    for name in out:
        out[name] = sort_weight(block, name, out[name], order)
    return out


def sort_weight(block: Block, name: str, weight: Tensor, order: Order) -> Tensor:
    """One tensor of a block, by its name in `reference`; those that no axis runs along stay as they are."""
    if isinstance(order, MlpOrder):
        if name == "down":
            return weight[:, order.channels]
        return weight[order.channels] if name in ("gate", "up", "gate_bias", "up_bias") else weight
    if isinstance(order, SsmOrder):
        return _sort_ssm(name, weight, order)
    if not isinstance(block, Attention):
        raise TypeError(f"{block.name} is no attention block")
    repeats = block.n_heads // block.n_kv_heads
    elements = torch.cat([order.pairs, order.pairs + block.head_dim // 2], dim=1)  # (n_kv_heads, head_dim)
    if name in ("q", "q_bias"):
        return _by_head(weight, elements.repeat_interleave(repeats, dim=0))
    if name in ("k", "k_bias"):
        return _by_head(weight, elements)
    if name == "inv_freq":
        return torch.gather(weight, 1, order.pairs)
    rotation = order.rotation.double()
    if name == "v":
        return (rotation.transpose(1, 2) @ weight.double()).to(weight.dtype)
    if name == "o":
        inverse = torch.linalg.inv(rotation).transpose(1, 2).repeat_interleave(repeats, dim=0)  # R^-T per query head
        return torch.einsum("dhs,hst->dht", weight.double(), inverse).to(weight.dtype)
    return weight


def sort_moments(block: Block, moments: Moments, order: Order) -> Mapping[str, Tensor]:
    """The moments of the sorted block: what its output weights read (z or hidden) follows the order.

    Each is sorted when it is looked up: they are as large as weights.
    """
    return _SortedMoments(block, moments, order)


class _SortedMoments(Mapping[str, Tensor]):
    def __init__(self, block: Block, moments: Moments, order: Order) -> None:
        self._block, self._moments, self._order = block, moments, order

    def __getitem__(self, name: str) -> Tensor:
        return sort_moment(self._block, name, self._moments[name], self._order)

    def __iter__(self) -> Iterator[str]:
        return iter(self._moments.tensors)

    def __len__(self) -> int:
        return len(self._moments.tensors)


def sort_moment(block: Block, name: str, moment: Tensor, order: Order) -> Tensor:
    """One of the moments of a block, by its name in `Moments`."""
    if isinstance(order, MlpOrder):
        c = order.channels
        if name == "hidden":
            return moment[c[:, None], c]
        return moment[c] if name == "hidden_mean" else moment
    if isinstance(order, SsmOrder):
        return _sort_ssm_moment(name, moment, order)
    if not isinstance(block, Attention):
        raise TypeError(f"{block.name} is no attention block")
    size, heads = block.head_dim, block.n_heads
    repeats = heads // block.n_kv_heads
    if name == "k_energy":
        return torch.gather(moment, 1, order.pairs)
    if name == "q_energy":
        return torch.gather(moment, 1, order.pairs.repeat_interleave(repeats, dim=0))
    rotation = order.rotation.double().repeat_interleave(repeats, dim=0)  # z' = R^T z per head
    if name == "z":
        z = moment.double().reshape(heads, size, heads, size)
        return torch.einsum("hia,hixj,xjb->haxb", rotation, z, rotation).reshape(moment.shape).float()
    if name == "z_mean":
        return torch.einsum("hia,hi->ha", rotation, moment.double()).float()
    return moment


def _by_head(weight: Tensor, index: Tensor) -> Tensor:
    """Each head's rows in its own order; index: (heads, rows)."""
    return torch.stack([own[i] for own, i in zip(weight, index, strict=True)])


def _sort_ssm(name: str, weight: Tensor, order: SsmOrder) -> Tensor:
    """Permutes each head's channels and each group's states; dt, a and d belong to whole heads."""
    if name == "out":
        parts = zip(weight.unbind(1), order.channels, strict=True)
        return torch.stack([w[:, i] for w, i in parts], dim=1)
    for index, roles in ((order.channels, ("z", "x", "gain")), (order.states, ("b", "c"))):
        if name.removesuffix("_bias").removesuffix("_conv") in roles:
            return _by_head(weight, index)
    return weight


def _sort_ssm_moment(name: str, moment: Tensor, order: SsmOrder) -> Tensor:
    n_heads, head_dim = order.channels.shape
    if name == "hidden":
        flat = (torch.arange(n_heads)[:, None] * head_dim + order.channels).flatten()
        return moment[flat[:, None], flat]
    if name == "hidden_mean":
        return torch.gather(moment, 1, order.channels)
    if name == "b_energy":
        return torch.gather(moment, 1, order.states.repeat_interleave(n_heads // len(order.states), dim=0))
    if name == "c_energy":
        return torch.gather(moment, 1, order.states)
    if name == "states":
        return torch.stack([m[i][:, i] for m, i in zip(moment, order.channels, strict=True)])
    return moment
