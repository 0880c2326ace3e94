"""Grids of integer values, up to 4 bits learned per weight by weighted k-means, and the search for group scales."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["LINEAR", "Grid", "learn_grid", "round_scale", "uniform_grid"]

_FIRST_GUESS = {
    2: (-127, -38, 34, 117),
    3: (-127, -80, -46, -17, 10, 38, 71, 113),
    4: (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113),
}
_FACTORS = {
    2: (0.28, 0.34, 0.4, 0.46, 0.52, 0.59, 0.67, 0.77, 0.88),
    3: (0.46, 0.53, 0.6, 0.66, 0.72, 0.78, 0.84, 0.91, 1.0),
    4: (0.68, 0.74, 0.8, 0.85, 0.9, 0.94, 0.98, 1.02, 1.07),
}
_ROUNDS = 5
_POLISH = 2
_SAMPLE_GROUPS = 4096


@dataclass(frozen=True)
class Grid:
    """values: ascending integers within +-127. factors: scales to try, as shares of the largest |w| / reach."""

    values: tuple[int, ...]
    factors: tuple[float, ...]
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
        """One scale per group, rounded to float16, with the least weighted squared error found.

        groups: (n_groups, group) weights; importance: (group,) or (n_groups, group) >= 0; returns (n_groups,) float32.
        All factors are tried, then the best is fitted to its codes by least squares. A negative scale mirrors the
        grid, which is not symmetric.
        """
        largest = groups.abs().amax(1)
        best = torch.zeros_like(largest)
        best_error = torch.full_like(largest, torch.inf)
        best_fit = best

        def attempt(scale: Tensor) -> None:
            nonlocal best, best_error, best_fit
            values = self.decode(self.codes(groups / scale[:, None]))
            total = ((groups - scale[:, None] * values).square() * importance).sum(1)
            better = total < best_error
            weighted = values * importance
            fit = (groups * weighted).sum(1) / (values * weighted).sum(1).clamp_min(1e-30)
            best, best_fit = torch.where(better, scale, best), torch.where(better, fit, best_fit)
            best_error = torch.where(better, total, best_error)

        for sign in (1.0, -1.0):
            for factor in self.factors:
                attempt(round_scale(largest * (sign * factor / self.reach)))
        for _ in range(_POLISH):
            attempt(round_scale(best_fit))
        return best


LINEAR = {
    6: Grid(tuple(range(-32, 32)), (0.84, 0.88, 0.92, 0.96, 1.0), reach=31),
    8: Grid(tuple(range(-127, 128)), (1.0,)),
}
"""What codes of 6 and 8 bits mean: values themselves, without a codebook (SPEC.md section 4)."""


def uniform_grid(bits: int) -> Grid:
    """The baseline: 2 ** bits evenly spaced values within +-127."""
    if bits in LINEAR:
        return LINEAR[bits]
    step = 254 // (2**bits - 1) // 2 * 2 - 1
    top = step * (2**bits - 1) // 2
    shares = {2: (0.5, 0.6, 0.7, 0.8, 0.9), 3: (0.7, 0.8, 0.9, 1.0), 4: (0.85, 0.9, 0.95, 1.0, 1.05, 1.13)}
    return Grid(tuple(range(-top, top + 2, step))[: 2**bits], shares[bits], reach=top)


def round_scale(scale: Tensor) -> Tensor:
    """Scales as the file holds them: float16, never zero or infinite."""
    sign = torch.where(scale < 0, -1.0, 1.0)
    return sign * scale.abs().clamp(2.0**-20, 60000.0).half().float()


def learn_grid(groups: Tensor, importance: Tensor, bits: int = 4, seed: int = 0) -> Grid:
    """Learns the 2 ** bits values for one weight matrix by weighted k-means on weights divided by their group's scale.

    groups: (n_groups, group); importance: (n_groups, group) or (group,). Source: Lloyd's algorithm, the scales searched
    anew in every round; at most 4096 groups are looked at.
    """
    importance = importance.expand_as(groups)
    if len(groups) > _SAMPLE_GROUPS:
        pick = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))[:_SAMPLE_GROUPS]
        groups, importance = groups[pick], importance[pick]
    size = 1 << bits
    grid = Grid(_FIRST_GUESS[bits], _FACTORS[bits])
    centers = torch.tensor(grid.values, dtype=torch.float64)
    for _ in range(_ROUNDS):
        scale = grid.best_scales(groups, importance)[:, None]
        scaled = groups / scale
        codes = grid.codes(scaled).flatten()
        mass = (importance * scale.square()).double().flatten()
        total = torch.zeros(size, dtype=torch.float64).index_add_(0, codes, mass)
        moved = torch.zeros(size, dtype=torch.float64).index_add_(0, codes, mass * scaled.double().flatten())
        centers = torch.where(total > 0, moved / total.clamp_min(1e-300), centers).clamp(-127, 127)
        grid = Grid(_ascending([round(float(c)) for c in centers]), _FACTORS[bits])
    return grid


def _ascending(values: list[int]) -> tuple[int, ...]:
    """Strictly ascending integers within +-127, near the given ones."""
    values = sorted(values)
    for i in range(1, len(values)):
        values[i] = max(values[i], values[i - 1] + 1)
    values[-1] = min(values[-1], 127)
    for i in range(len(values) - 2, -1, -1):
        values[i] = min(values[i], values[i + 1] - 1)
    return tuple(values)
