"""Baseline: inner elements by the norms of the weights that make and read them; activations are not looked at."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesdk.cloud.families.blocks import Attention, Block, Ssm
from edgesdk.cloud.moments import Moments
from edgesdk.cloud.rank.outputs import descending, pair_order
from edgesdk.cloud.reference import BlockWeights
from edgesdk.cloud.sort import AttentionOrder, MlpOrder, Order, SsmOrder

__all__ = ["rank"]


def rank(block: Block, weights: BlockWeights, moments: Moments) -> Order:
    """Products of the norms of rows and columns; the axes are permuted, never rotated."""
    if isinstance(block, Ssm):
        channels = _norms(weights["x"]) * weights["out"].norm(dim=0)
        return SsmOrder(descending(_norms(weights["b"]) * _norms(weights["c"])), descending(channels))
    if not isinstance(block, Attention):
        return MlpOrder(descending(_norms(weights["up"]) * weights["down"].norm(dim=0)))
    groups = (block.n_kv_heads, -1)
    q = _norms(weights["q"]).square().unflatten(1, (2, -1)).sum(1).unflatten(0, groups).sum(1)
    k = _norms(weights["k"]).square().unflatten(1, (2, -1)).sum(1)
    o = weights["o"].square().sum(0).unflatten(0, groups).sum(1)
    values = descending(_norms(weights["v"]) * o.sqrt())
    eye = torch.eye(block.head_dim, dtype=torch.float64)
    pairs = pair_order(block, q * k)
    return AttentionOrder(pairs, torch.stack([eye[:, order] for order in values]))


def _norms(rows: Tensor) -> Tensor:
    return rows.norm(dim=-1)
