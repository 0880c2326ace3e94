"""Baseline ranking after UniQL (arXiv 2512.03383): ridge leverage scores, PCA of the values, pair energies."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesdk.cloud.factor import widened
from edgesdk.cloud.families.blocks import Attention, Block, Ssm
from edgesdk.cloud.moments import Moments
from edgesdk.cloud.rank.outputs import descending, pair_order, pair_score, state_energy
from edgesdk.cloud.reference import BlockWeights
from edgesdk.cloud.sort import AttentionOrder, MlpOrder, Order, SsmOrder

__all__ = ["rank", "ridge_leverage"]

_RIDGE = 1.0 / 2048


def rank(block: Block, weights: BlockWeights, moments: Moments) -> Order:
    """MLP channels by ridge leverage (down ignored), value dims by PCA of the values, RoPE pairs by energies."""
    if isinstance(block, Ssm):
        states = state_energy(block, moments).sqrt().reshape(block.n_groups, -1, block.state_size).sum(1)
        channels = torch.stack([ridge_leverage(moment) for moment in moments["states"]])
        return SsmOrder(descending(states), descending(channels))
    if not isinstance(block, Attention):
        return MlpOrder(torch.argsort(ridge_leverage(moments["hidden"]), descending=True, stable=True))
    pairs = pair_order(block, pair_score(block, moments))
    _, vectors = torch.linalg.eigh(moments["v"].double())  # ascending
    return AttentionOrder(pairs, vectors.flip(-1))


def ridge_leverage(moment: Tensor, ridge: float = _RIDGE) -> Tensor:
    """1 - ridge * P_ii with P = (moment + ridge I)^-1: the ridge leverage score of each channel, in [0, 1]. (d,)"""
    work = widened(moment)
    work.diagonal().add_(ridge)
    torch.linalg.cholesky(work, out=work)
    return 1 - ridge * torch.cholesky_inverse(work, out=work).diagonal()
