"""Second-order estimates: the squared output error of a block when only a prefix of one axis is kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgesdk.cloud.families.blocks import Attention, Block, Ssm
from edgesdk.cloud.rank.outputs import state_energy
from edgesdk.cloud.reference import BlockWeights

__all__ = ["loss_shape", "prefix_errors"]


def loss_shape(block: Block, weights: BlockWeights, moments: Mapping[str, Tensor]) -> list[Tensor]:
    """One curve per axis: (size + 1,) float64, entry n is the error when the first n elements are kept.

    weights, moments: of the sorted block. The mean is repaired by a bias and does not count. Units: output squared per
    token for width and vo; for qk the energy of the scores that is lost,
    for states that of dt b times c. Only the shape of a curve is used.
    """
    if isinstance(block, Ssm):
        by_channel = _by_rank(weights["out"], moments["hidden"], moments["hidden_mean"])
        return [_tails(state_energy(block, moments).double().sum(0)), prefix_errors(by_channel)]
    if not isinstance(block, Attention):
        down = weights["down"].double()
        mean = moments["hidden_mean"].double()
        covariance = moments["hidden"].double() - torch.outer(mean, mean)
        return [prefix_errors((down.T @ down) * covariance)]
    by_rank = _by_rank(weights["o"], moments["z"], moments["z_mean"])
    return [_pair_errors(block, moments), prefix_errors(by_rank)]


def _by_rank(output: Tensor, moment: Tensor, mean: Tensor) -> Tensor:
    """(W^T W) * C summed over heads, (size, size); output (d_model, heads, size), mean (heads, size)."""
    _, heads, size = output.shape
    w, m = output.double().flatten(1), mean.double().flatten()
    product = (w.T @ w) * (moment.double() - torch.outer(m, m))
    return product.reshape(heads, size, heads, size).sum((0, 2))


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
    return _tails(energy).repeat_interleave(2)[: 2 * pairs + 1]


def _tails(energy: Tensor) -> Tensor:
    """Sum of energy[i] over i >= n, for n = 0..size."""
    return torch.cat([energy.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64)])
