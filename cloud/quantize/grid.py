"""Grids of integer values, at 4 bits learned per weight matrix by weighted k-means, and the search for group scales."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["LINEAR_6BIT", "UNIFORM", "Grid", "learn_grid"]

_FIRST_GUESS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_ROUNDS = 5
_SAMPLE_GROUPS = 4096


@dataclass(frozen=True)
class Grid:
    """values: ascending integers within +-127. factors: scales to try, as shares of the largest |w| / reach."""

    values: tuple[int, ...]
    factors: tuple[float, ...] = (0.68, 0.74, 0.8, 0.85, 0.9, 0.94, 0.98, 1.02, 1.07)
    reach: int = 127

    @cached_property
    def _table(self) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float32)

    @cached_property
    def _borders(self) -> Tensor:
        return (self._table[1:] + self._table[:-1]) / 2

    def codes(self, scaled: Tensor) -> Tensor:
        """Index of the nearest value of each element of `scaled` = weight / scale (int64)."""
        return torch.bucketize(scaled, self._borders)

    def decode(self, codes: Tensor) -> Tensor:
        """Values of codes, float32."""
        return self._table[codes]

    def best_scales(self, groups: Tensor, importance: Tensor) -> Tensor:
        """One scale per group, rounded to float16, with the least weighted squared error.

        groups: (n_groups, group) weights; importance: (group,) or (n_groups, group) >= 0; returns (n_groups,) float32.
        A negative scale mirrors the grid, which is not symmetric.
        """
        largest = groups.abs().amax(1)
        best = torch.zeros_like(largest)
        best_error = torch.full_like(largest, torch.inf)
        for sign in (1.0, -1.0):
            for factor in self.factors:
                scale = round_scale(largest * (sign * factor / self.reach))
                error = groups - scale[:, None] * self.decode(self.codes(groups / scale[:, None]))
                total = (error.square() * importance).sum(1)
                better = total < best_error
                best = torch.where(better, scale, best)
                best_error = torch.where(better, total, best_error)
        return best


UNIFORM = Grid(tuple(range(-112, 114, 15)), (0.85, 0.9, 0.95, 1.0, 1.05, 1.13))

LINEAR_6BIT = Grid(tuple(range(-32, 32)), (0.84, 0.88, 0.92, 0.96, 1.0), reach=31)
"""What 6-bit codes mean: code - 32, without a codebook (SPEC.md section 4)."""


def round_scale(scale: Tensor) -> Tensor:
    """Scales as the file holds them: float16, never zero or infinite."""
    sign = torch.where(scale < 0, -1.0, 1.0)
    return sign * scale.abs().clamp(2.0**-20, 60000.0).half().float()


def learn_grid(groups: Tensor, importance: Tensor, seed: int = 0) -> Grid:
    """Learns the 16 values for one weight matrix by weighted k-means on weights divided by their group's scale.

    groups: (n_groups, group); importance: (n_groups, group) or (group,). Source: Lloyd's algorithm, the scales searched
    anew in every round; at most 4096 groups are looked at.
    """
    importance = importance.expand_as(groups)
    if len(groups) > _SAMPLE_GROUPS:
        pick = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))[:_SAMPLE_GROUPS]
        groups, importance = groups[pick], importance[pick]
    grid = Grid(_FIRST_GUESS)
    centers = torch.tensor(_FIRST_GUESS, dtype=torch.float64)
    for _ in range(_ROUNDS):
        scale = grid.best_scales(groups, importance)[:, None]
        scaled = groups / scale
        codes = grid.codes(scaled).flatten()
        mass = (importance * scale.square()).double().flatten()
        total = torch.zeros(16, dtype=torch.float64).index_add_(0, codes, mass)
        moved = torch.zeros(16, dtype=torch.float64).index_add_(0, codes, mass * scaled.double().flatten())
        centers = torch.where(total > 0, moved / total.clamp_min(1e-300), centers).clamp(-127, 127)
        grid = Grid(_ascending([round(float(c)) for c in centers]))
    return grid


def _ascending(values: list[int]) -> tuple[int, ...]:
    """Strictly ascending integers within +-127, near the given ones."""
    values = sorted(values)
    for i in range(1, 16):
        values[i] = max(values[i], values[i - 1] + 1)
    values[15] = min(values[15], 127)
    for i in range(14, -1, -1):
        values[i] = min(values[i], values[i + 1] - 1)
    return tuple(values)
