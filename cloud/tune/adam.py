"""Adam (arXiv 1412.6980) on one tensor at a time, and the order in which text and levels come."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Adam", "draw", "rate_factor", "shuffled_batches"]

_BETAS = (0.9, 0.99)
_WARM_UP = 4  # steps


@dataclass
class Adam:
    """A tensor that is trained. zeros: makes the two more of its shape that training needs."""

    value: Tensor
    zeros: Callable[[Sequence[int]], Tensor] = torch.zeros
    mean: Tensor = field(init=False)
    square: Tensor = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.mean, self.square = self.zeros(self.value.shape), self.zeros(self.value.shape)

    def step(self, gradient: Tensor, rate: float) -> None:
        """rate: about the largest change of an element in this step."""
        self.count += 1
        self.mean.lerp_(gradient, 1 - _BETAS[0])
        self.square.lerp_(gradient.square(), 1 - _BETAS[1])
        mean = self.mean / (1 - _BETAS[0] ** self.count)
        self.value -= rate * mean / ((self.square / (1 - _BETAS[1] ** self.count)).sqrt() + 1e-12)


def rate_factor(step: int, n_steps: int) -> float:
    """Of the rate at step 1, 2, .. n_steps: a short warm-up, then half a cosine down to about 0."""
    return min(1.0, step / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * (step - 1) / n_steps))


def shuffled_batches(n_windows: int, n_epochs: int, batch_windows: int, seed: int) -> list[Tensor]:
    """Indices of windows, each once an epoch."""
    generator = torch.Generator().manual_seed(seed)
    batches: list[Tensor] = []
    for _ in range(n_epochs):
        batches += torch.randperm(n_windows, generator=generator).split(batch_windows)
    return batches


def draw(levels: Sequence[int], n_steps: int, seed: int) -> list[int]:
    """Levels for so many steps: all come up before any comes up again."""
    generator = torch.Generator().manual_seed(seed)
    drawn: list[int] = []
    while len(drawn) < n_steps:
        drawn += [levels[i] for i in torch.randperm(len(levels), generator=generator).tolist()]
    return drawn[:n_steps]
