"""Grids of integer values, up to 4 bits learned per weight by weighted k-means, and the search for group scales."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["LINEAR", "Grid", "best_values", "learn_grid", "round_scale", "uniform_grid"]

_FIRST_GUESS = {  # on places four times as fine as those of the file
    2: (-127, -38, 34, 117),
    3: (-127, -80, -46, -17, 10, 38, 71, 113),
    4: (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113),
}
_FINE_REACH = 127
_FACTORS = {
    2: (0.28, 0.34, 0.4, 0.46, 0.52, 0.59, 0.67, 0.77, 0.88),
    3: (0.46, 0.53, 0.6, 0.66, 0.72, 0.78, 0.84, 0.91, 1.0),
    4: (0.68, 0.74, 0.8, 0.85, 0.9, 0.94, 0.98, 1.02, 1.07),
}
_ROUNDS = 5
_POLISH = 2
_SAMPLE_GROUPS = 4096
_LOWEST, _HIGHEST = -32, 31
"""Values below 8 bits are integers of 6 bits, so that kernels can add four products in 16 bits (SPEC.md section 4)."""
_STRETCHES = tuple((0.8 + 0.01 * i) / 4 for i in range(31))


@dataclass(frozen=True)
class Grid:
    """values: ascending integers. factors: scales to try, as shares of the largest |w| / reach."""

    values: tuple[int, ...]
    factors: tuple[float, ...]
    reach: float

    @cached_property
    def _table(self) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float32)

    @cached_property
    def _steps(self) -> Tensor:
        """The code of every interval between two halves of integers: all borders between values are such halves."""
        halves = torch.arange(2 * self.values[0], 2 * self.values[-1] + 1)
        return torch.bucketize(halves, halves.new_tensor([a + b for a, b in pairwise(self.values)]))

    @cached_property
    def _nearest(self) -> Tensor:
        return self._table[self._steps]

    def codes(self, scaled: Tensor) -> Tensor:
        """Index of the nearest value of each element of `scaled` = weight / scale (int64)."""
        return self._look_up(self._steps, scaled)

    def nearest(self, scaled: Tensor) -> Tensor:
        """The nearest value of each element of `scaled`, float32."""
        return self._look_up(self._nearest, scaled)

    def _look_up(self, steps: Tensor, scaled: Tensor) -> Tensor:
        low, high = 2.0 * self.values[0], 2.0 * self.values[-1]
        at = (2 * scaled).ceil_().clamp_(low, high).sub_(low).to(torch.int32)
        return steps.index_select(0, at.flatten()).view_as(scaled)

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
            values = self.nearest(groups / scale[:, None])
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
    8: Grid(tuple(range(-127, 128)), (1.0,), reach=127),
}
"""What codes of 6 and 8 bits mean: values themselves, without a codebook (SPEC.md section 4)."""


def uniform_grid(bits: int) -> Grid:
    """The baseline: 2 ** bits evenly spaced values, as many below zero as above it but for one half step."""
    if bits in LINEAR:
        return LINEAR[bits]
    step = (_HIGHEST - _LOWEST) // (2**bits - 1)
    lowest = -((step * (2**bits - 1) + 1) // 2)
    shares = {2: (0.5, 0.6, 0.7, 0.8, 0.9), 3: (0.7, 0.8, 0.9, 1.0), 4: (0.85, 0.9, 0.95, 1.0, 1.05, 1.13)}
    return Grid(tuple(lowest + step * i for i in range(2**bits)), shares[bits], reach=-lowest)


def round_scale(scale: Tensor) -> Tensor:
    """Scales as the file holds them: float16, never zero or infinite."""
    sign = torch.where(scale < 0, -1.0, 1.0)
    return sign * scale.abs().clamp(2.0**-20, 60000.0).half().float()


def learn_grid(groups: Tensor, importance: Tensor, bits: int = 4, seed: int = 0) -> Grid:
    """Learns the 2 ** bits values for one weight matrix by weighted k-means on weights divided by their group's scale.

    groups: (n_groups, group); importance: (n_groups, group) or (group,). Scales and values are searched in turn;
    at most 4096 groups are looked at.
    """
    importance = importance.expand_as(groups)
    if len(groups) > _SAMPLE_GROUPS:
        pick = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))[:_SAMPLE_GROUPS]
        groups, importance = groups[pick], importance[pick]
    values = _FIRST_GUESS[bits]
    for _ in range(_ROUNDS):
        grid = Grid(values, _FACTORS[bits], _FINE_REACH)
        scale = grid.best_scales(groups, importance)[:, None]
        scaled = (groups / scale).flatten()
        mass = (importance * scale.square()).double().flatten()
        codes, scaled = grid.codes(scaled), scaled.double()
        total, moved = torch.zeros(2, 1 << bits, dtype=torch.float64)
        total.index_add_(0, codes, mass)
        moved.index_add_(0, codes, mass * scaled)
        values = tuple((moved / total).where(total > 0, torch.tensor(values)).round().int().tolist())
    scaled, mass = _gather(scaled, mass)
    fits = [(*best_values(scaled * stretch, mass / stretch**2, bits), stretch) for stretch in _STRETCHES]
    _, integers, stretch = min(fits)
    return Grid(integers, _FACTORS[bits], _FINE_REACH * stretch)


def _gather(points: Tensor, mass: Tensor, width: float = 1 / 64) -> tuple[Tensor, Tensor]:
    """Points that lie within `width` of each other as one at their mean: at most a few thousand."""
    _, bins = torch.unique((points / width).floor(), return_inverse=True)
    total, moved = torch.zeros(2, int(bins.max()) + 1, dtype=torch.float64)
    total.index_add_(0, bins, mass)
    moved.index_add_(0, bins, mass * points)
    return moved / total.clamp_min(1e-300), total


def best_values(points: Tensor, mass: Tensor, bits: int) -> tuple[float, tuple[int, ...]]:
    """The 2 ** bits integers from -32 to 31 nearest to the points, and the weighted squared error: (error, values).

    Exact, by dynamic programming over the values in ascending order: between two neighbours a and b, points below
    (a + b) / 2 go to a. Source: k-means in one dimension (Wang and Song 2011), the centres held to integers.
    """
    n, places = 1 << bits, torch.arange(_LOWEST, _HIGHEST + 1, dtype=torch.float64)
    borders = torch.arange(2 * _LOWEST, 2 * _HIGHEST + 1, dtype=torch.float64) / 2
    bins = torch.bucketize(points, borders, right=True)
    moments = torch.zeros(3, len(borders) + 1, dtype=torch.float64)
    for power in range(3):
        moments[power].index_add_(0, bins, mass * points**power)
    below = torch.cat([torch.zeros(3, 1, dtype=torch.float64), moments.cumsum(1)], 1)  # column i + 1: below borders[i]
    to_left, total = below[:, 1:-1], below[:, -1:]

    def error(sums: Tensor, value: Tensor) -> Tensor:
        return sums[2] - 2 * value * sums[1] + value.square() * sums[0]

    at = torch.arange(len(places))
    middle = at[:, None] + at[None, :]  # index of the border halfway between two places
    left, right = to_left[:, 2 * at], to_left[:, middle]
    between = error(right - left[:, :, None], places[:, None]) + error(left[:, None, :] - right, places[None, :])
    between = between.masked_fill(at[:, None] >= at[None, :], torch.inf)
    best, choices = error(left, places), []
    for _ in range(n - 1):
        best, choice = (best[:, None] + between).min(0)
        choices.append(choice)
    best = best + error(total - left, places)
    index = int(best.argmin())
    values = [int(places[index])]
    for choice in reversed(choices):
        index = int(choice[index])
        values.append(int(places[index]))
    return float(best.min()), tuple(reversed(values))
