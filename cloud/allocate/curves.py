"""Second-order estimates: the squared output error of a block when only a prefix of one axis is kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgesdk.cloud.families.blocks import Attention, Block
from edgesdk.cloud.reference import BlockWeights

__all__ = ["loss_shape", "prefix_errors"]


def loss_shape(block: Block, weights: BlockWeights, moments: Mapping[str, Tensor]) -> list[Tensor]:
    """One curve per axis: (size + 1,) float64, entry n is the error when the first n elements are kept.

    weights, moments: of the sorted block. The mean is repaired by a bias and does not count. Units: output squared per
    token for width and vo; for qk the energy of the scores that is lost. Only the shape of a curve is used.
    """
    if not isinstance(block, Attention):
        down = weights["down"].double()
        mean = moments["hidden_mean"].double()
        covariance = moments["hidden"].double() - torch.outer(mean, mean)
        return [prefix_errors((down.T @ down) * covariance)]
    heads, size = block.n_heads, block.head_dim
    o = weights["o"].double().flatten(1)
    mean = moments["z_mean"].double().flatten()
    product = (o.T @ o) * (moments["z"].double() - torch.outer(mean, mean))
    by_rank = product.reshape(heads, size, heads, size).sum((0, 2))
    return [_pair_errors(block, moments), prefix_errors(by_rank)]


def prefix_errors(product: Tensor) -> Tensor:
    """Sum of product[i, j] over i, j >= n, for n = 0..size: tr(W_T C_TT W_T^T) when product = (W^T W) * C."""
    reversed_sums = product.flip(0, 1).cumsum(0).cumsum(1).diagonal()
    errors = torch.cat([torch.zeros(1, dtype=torch.float64), reversed_sums]).flip(0)
    return errors.clamp_min(0.0).flip(0).cummax(0).values.flip(0)


def _pair_errors(block: Attention, moments: Mapping[str, Tensor]) -> Tensor:
    """Score energy of the dropped RoPE pairs; entry n keeps n elements, that is n / 2 pairs of each head."""
    pairs = block.head_dim // 2
    q = moments["q_energy"].double().reshape(block.n_kv_heads, -1, pairs).sum(1)
    energy = (q * moments["k_energy"].double()).sum(0)
    tail = torch.cat([energy.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64)])
    return tail.repeat_interleave(2)[: 2 * pairs + 1]
