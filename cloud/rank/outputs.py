"""Ranks inner elements by what they add to the block's output: the loss of dropping them without repair."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgesdk.cloud.families.blocks import Attention, Block, Ssm
from edgesdk.cloud.moments import Moments
from edgesdk.cloud.reference import BlockWeights
from edgesdk.cloud.sort import AttentionOrder, MlpOrder, Order, SsmOrder

__all__ = ["channel_loss", "descending", "pair_order", "pair_score", "rank", "state_energy", "value_rotation"]

_RIDGE = 1e-6


def rank(block: Block, weights: BlockWeights, moments: Moments) -> Order:
    """MLP channels by energy times output norm, RoPE pairs by their share of the scores, V/O by singular values.

    Channels of a state-space head like those of an MLP, states by what they can add to the outputs.
    """
    if isinstance(block, Ssm):
        channels = channel_loss({"down": weights["out"].flatten(1)}, moments).reshape(block.n_heads, -1)
        states = state_energy(block, moments).reshape(block.n_groups, -1, block.state_size)
        return SsmOrder(descending(states.sqrt().sum(1)), descending(channels))
    if not isinstance(block, Attention):
        return MlpOrder(torch.argsort(channel_loss(weights, moments), descending=True, stable=True))
    pairs = pair_order(block, pair_score(block, moments))
    repeats = block.n_heads // block.n_kv_heads
    size = block.head_dim
    z = moments["z"].reshape(block.n_heads, size, block.n_heads, size)
    own = torch.stack([z[h, :, h] for h in range(block.n_heads)])  # E[z_h z_h^T]
    rotations = [
        value_rotation(own[group].sum(0), weights["o"][:, group])
        for group in (slice(k * repeats, (k + 1) * repeats) for k in range(block.n_kv_heads))
    ]
    return AttentionOrder(pairs, torch.stack(rotations))


def channel_loss(weights: BlockWeights, moments: Moments) -> Tensor:
    """E[h_i^2] * |down[:, i]|^2: squared output error of dropping MLP channel i alone. (width,)"""
    return moments["hidden"].diagonal() * weights["down"].square().sum(0)


def state_energy(block: Ssm, moments: Moments | Mapping[str, Tensor]) -> Tensor:
    """E[(dt b_j)^2] E[c_j^2] of each state j, for every head: (n_heads, state)."""
    return moments["b_energy"] * moments["c_energy"].repeat_interleave(block.n_heads // block.n_groups, dim=0)


def descending(score: Tensor) -> Tensor:
    """The order of the last axis, largest first; equal ones stay in place."""
    return torch.argsort(score, dim=-1, descending=True, stable=True)


def pair_score(block: Attention, moments: Moments) -> Tensor:
    """Sum over a group's query heads of E[|q_j|^2] E[|k_j|^2], per RoPE pair j. (n_kv_heads, head_dim / 2)"""
    q = moments["q_energy"].reshape(block.n_kv_heads, -1, block.head_dim // 2).sum(1)
    return q * moments["k_energy"]


def pair_order(block: Attention, scores: Tensor) -> Tensor:
    """RoPE pairs of each key/value head, those of the highest scores first; both (n_kv_heads, head_dim / 2).

    With qk_norm none can be cut, and one gain serves all heads: they stay as they are.
    """
    if block.qk_norm:
        return torch.arange(block.head_dim // 2).expand(block.n_kv_heads, -1)
    return descending(scores)


def value_rotation(moment: Tensor, o: Tensor) -> Tensor:
    """Rotation R of one value head that puts the output's energy first; returns (d, d) float64.

    moment: (d, d) sum over the group's heads of E[z z^T], z = attention output; o: (d_model, group, d).
    With moment = V S^2 V^T and the SVD S V^T [o_1^T ... o_G^T] = U D Q^T: R = V S^-1 U D, so that R^T z has
    uncorrelated elements and the squared output error of dropping element j is D_j^2.
    """
    moment = moment.double()
    moment = moment + _RIDGE * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(moment)
    scale = values.clamp_min(float(values.max()) * 1e-12).sqrt()
    outputs = o.double().permute(2, 1, 0).flatten(1)  # (d, group * d_model)
    m = (vectors * scale).T @ outputs
    left, singular, _ = torch.linalg.svd(m, full_matrices=False)
    singular = singular.clamp_min(float(singular.max()) * 1e-9)
    return (vectors / scale) @ (left * singular)
