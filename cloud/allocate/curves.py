"""Second-order estimates: the squared output error of a block when only a prefix of one axis is kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgesdk.cloud.families.blocks import Attention, Block, Ssm
from edgesdk.cloud.rank.outputs import state_energy
from edgesdk.cloud.reference import BlockWeights

__all__ = ["loss_shape", "prefix_errors"]

_CHUNK_CHANNELS = 1024


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
        return [_channel_errors(weights["down"], moments["hidden"], moments["hidden_mean"])]
    by_rank = _by_rank(weights["o"], moments["z"], moments["z_mean"])
    return [_pair_errors(block, moments), prefix_errors(by_rank)]


def _by_rank(output: Tensor, moment: Tensor, mean: Tensor) -> Tensor:
    """(W^T W) * C summed over heads, (size, size); output (d_model, heads, size), mean (heads, size)."""
    _, heads, size = output.shape
    w, m = output.double().flatten(1), mean.double().flatten()
    total = torch.zeros(size, size, dtype=torch.float64)
    for begin in range(0, heads * size, size):  # of one head with all heads
        rows = slice(begin, begin + size)
        product = (w[:, rows].T @ w) * (moment[rows].double() - torch.outer(m[rows], m))
        total += product.reshape(size, heads, size).sum(1)
    return total


def prefix_errors(product: Tensor) -> Tensor:
    """Sum of product[i, j] over i, j >= n, for n = 0..size: tr(W_T C_TT W_T^T) when product = (W^T W) * C.

    product: symmetric
    """
    return _monotone(2 * product.triu(1).sum(1) + product.diagonal())


def _channel_errors(down: Tensor, moment: Tensor, mean: Tensor) -> Tensor:
    """`prefix_errors` of (W^T W) * C for an MLP, some rows of the product at a time."""
    w, m = down.double(), mean.double()
    added = []
    for begin in range(0, len(m), _CHUNK_CHANNELS):
        rows, later = slice(begin, begin + _CHUNK_CHANNELS), slice(begin, None)
        product = (w[:, rows].T @ w[:, later]) * (moment[rows, later].double() - torch.outer(m[rows], m[later]))
        added.append(2 * product.triu(1).sum(1) + product.diagonal())
    return _monotone(torch.cat(added))


def _monotone(added: Tensor) -> Tensor:
    """From what each element adds to those behind it to the errors of keeping the first n: (size + 1,)."""
    errors = torch.cat([added.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64)])
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
