"""Baseline: the order that the checkpoint has; an element's place says nothing about its use."""

from __future__ import annotations

import torch

from edgesdk.cloud.families.blocks import Attention, Block, Ssm
from edgesdk.cloud.moments import Moments
from edgesdk.cloud.reference import BlockWeights
from edgesdk.cloud.sort import AttentionOrder, MlpOrder, Order, SsmOrder

__all__ = ["rank"]


def rank(block: Block, weights: BlockWeights, moments: Moments) -> Order:
    """Every axis stays as it is."""
    if isinstance(block, Ssm):
        return SsmOrder(
            torch.arange(block.state_size).repeat(block.n_groups, 1),
            torch.arange(block.head_dim).repeat(block.n_heads, 1),
        )
    if not isinstance(block, Attention):
        return MlpOrder(torch.arange(block.width))
    pairs = torch.arange(block.head_dim // 2).repeat(block.n_kv_heads, 1)
    eye = torch.eye(block.head_dim, dtype=torch.float64)
    return AttentionOrder(pairs, eye.repeat(block.n_kv_heads, 1, 1))
