"""Reorders and rotates a block's inner axes so that every prefix is a good smaller block; the function is unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgesdk.cloud.families.blocks import Attention, Block
from edgesdk.cloud.moments import Moments
from edgesdk.cloud.reference import BlockWeights

__all__ = ["AttentionOrder", "MlpOrder", "Order", "SsmOrder", "sort_block", "sort_moments"]


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
    """The same block with its axes in order. Dtypes are kept; rotations are done in float64."""
    out = dict(weights)
    if isinstance(order, MlpOrder):
        rows = [role for role in ("gate", "up", "gate_bias", "up_bias") if role in weights]
        out |= {role: weights[role][order.channels] for role in rows}
        out["down"] = weights["down"][:, order.channels]
        return out
    if isinstance(order, SsmOrder):
        return _sort_ssm(weights, order)
    if not isinstance(block, Attention):
        raise TypeError(f"{block.name} is no attention block")
    repeats = block.n_heads // block.n_kv_heads
    elements = torch.cat([order.pairs, order.pairs + block.head_dim // 2], dim=1)  # (n_kv_heads, head_dim)
    by_head = elements.repeat_interleave(repeats, dim=0)
    for role, index in (("q", by_head), ("k", elements)):
        for name in (role, f"{role}_bias"):
            if name in weights:
                out[name] = torch.stack([w[i] for w, i in zip(weights[name], index, strict=True)])
    out["inv_freq"] = torch.gather(weights["inv_freq"], 1, order.pairs)
    rotation = order.rotation.double()
    inverse = torch.linalg.inv(rotation).transpose(1, 2).repeat_interleave(repeats, dim=0)  # R^-T per query head
    dtype = weights["v"].dtype
    out["v"] = (rotation.transpose(1, 2) @ weights["v"].double()).to(dtype)
    out["o"] = torch.einsum("dhs,hst->dht", weights["o"].double(), inverse).to(dtype)
    return out


def sort_moments(block: Block, moments: Moments, order: Order) -> dict[str, Tensor]:
    """The moments of the sorted block: what its output weights read (z or hidden) follows the order."""
    out: Mapping[str, Tensor] = moments.tensors
    if isinstance(order, MlpOrder):
        c = order.channels
        return {**out, "hidden": out["hidden"][c][:, c], "hidden_mean": out["hidden_mean"][c]}
    if isinstance(order, SsmOrder):
        return _sort_ssm_moments(out, order)
    if not isinstance(block, Attention):
        raise TypeError(f"{block.name} is no attention block")
    size, heads = block.head_dim, block.n_heads
    rotation = order.rotation.double().repeat_interleave(heads // block.n_kv_heads, dim=0)  # z' = R^T z per head
    z = out["z"].double().reshape(heads, size, heads, size)
    z = torch.einsum("hia,hixj,xjb->haxb", rotation, z, rotation).reshape(heads * size, heads * size)
    mean = torch.einsum("hia,hi->ha", rotation, out["z_mean"].double())
    k_energy = torch.gather(out["k_energy"], 1, order.pairs)
    q_energy = torch.gather(out["q_energy"], 1, order.pairs.repeat_interleave(heads // block.n_kv_heads, dim=0))
    return {**out, "z": z.float(), "z_mean": mean.float(), "q_energy": q_energy, "k_energy": k_energy}


def _sort_ssm(weights: BlockWeights, order: SsmOrder) -> dict[str, Tensor]:
    """Permutes each head's channels and each group's states; dt, a and d belong to whole heads."""
    out = dict(weights)
    for index, roles in ((order.channels, ("z", "x", "gain")), (order.states, ("b", "c"))):
        for name in (n for role in roles for n in (role, f"{role}_bias", f"{role}_conv")):
            if name in weights:
                out[name] = torch.stack([w[i] for w, i in zip(weights[name], index, strict=True)])
    parts = zip(weights["out"].unbind(1), order.channels, strict=True)
    out["out"] = torch.stack([w[:, i] for w, i in parts], dim=1)
    return out


def _sort_ssm_moments(moments: Mapping[str, Tensor], order: SsmOrder) -> dict[str, Tensor]:
    n_heads, head_dim = order.channels.shape
    flat = (torch.arange(n_heads)[:, None] * head_dim + order.channels).flatten()
    states = order.states.repeat_interleave(n_heads // len(order.states), dim=0)
    return {
        **moments,
        "hidden": moments["hidden"][flat][:, flat],
        "hidden_mean": torch.gather(moments["hidden_mean"], 1, order.channels),
        "b_energy": torch.gather(moments["b_energy"], 1, states),
        "c_energy": torch.gather(moments["c_energy"], 1, order.states),
        "states": torch.stack([m[i][:, i] for m, i in zip(moments["states"], order.channels, strict=True)]),
    }
