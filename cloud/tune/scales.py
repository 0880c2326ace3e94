"""Tunes what is stored as float (group scales and norm gains) by distillation; the codes stay as they are.

The full level learns to predict what the source predicts on calibration text. Source: end-to-end training of
quantization parameters, EfficientQAT (arXiv 2407.11062), here with KL to the source as the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from edgesdk.cloud.config import TuneConfig
from edgesdk.cloud.quantize.block import file_order
from edgesdk.cloud.quantize.grid import round_scale
from edgesdk.cloud.reference import Decoder, product_dtype
from edgesdk.cloud.stored import scales_name
from edgesdk.cloud.tune.gradients import divergence_gradients
from edgesdk.cloud.tune.student import Part, Student
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["tune_scales"]

_BETAS = (0.9, 0.99)
_WARM_UP = 4  # steps

Progress = Callable[[int, int], None]


@dataclass
class _Adam:
    """Adam (arXiv 1412.6980) on relative changes: a parameter p is held as p (1 + change)."""

    change: Tensor
    mean: Tensor = field(init=False)
    square: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.mean, self.square = torch.zeros_like(self.change), torch.zeros_like(self.change)

    def step(self, gradient: Tensor, rate: float, count: int) -> None:
        """gradient: of the change; rate: its largest size in this step; count: steps so far, from 1."""
        self.mean.lerp_(gradient, 1 - _BETAS[0])
        self.square.lerp_(gradient.square(), 1 - _BETAS[1])
        mean = self.mean / (1 - _BETAS[0] ** count)
        self.change -= rate * mean / ((self.square / (1 - _BETAS[1] ** count)).sqrt() + 1e-12)


def tune_scales(
    source: Decoder,
    student: Student,
    windows: Tensor,
    settings: TuneConfig,
    work: WorkDirectory,
    progress: Progress | None = None,
) -> None:
    """Writes each block's tuned scales and norm gain into `work`; a finished run is not repeated.

    source: the float model; windows: (n_windows, tokens) calibration text, seen settings.n_epochs times
    """
    blocks = source.config.blocks
    if all(work.has(scales_name(index)) for index in range(len(blocks))):
        return
    state = {
        (index, role): _Adam(torch.zeros_like(part.scales))
        for index in range(len(blocks))
        for role, part in student.parts(index).items()
    }
    norms = [_Adam(torch.zeros_like(vectors["norm"])) for vectors in student.vectors]
    decoder = student.decoder(
        lambda index, role: state[index, role].change,
        lambda index: norms[index].change,
    )
    with torch.no_grad():
        states = source.final_states(windows, settings.batch_windows, product_dtype())
    batches = _batches(len(windows), settings)
    for count, batch in enumerate(batches, 1):
        decay = 0.5 * (1 + math.cos(math.pi * (count - 1) / len(batches)))
        rate = settings.rate * min(1.0, count / _WARM_UP) * decay

        def see(index: int, gradients: Mapping[str, Tensor], rate: float = rate, count: int = count) -> None:
            parts = student.parts(index)
            for weight in blocks[index].weights:
                gradient = file_order(blocks[index], weight, gradients[weight.role])
                state[index, weight.role].step(_scale_gradient(gradient, parts[weight.role]), rate, count)
            norms[index].step(gradients["norm"] * student.vectors[index]["norm"], rate, count)

        divergence_gradients(source, states[batch], decoder, windows[batch], see)
        if progress:
            progress(count, len(batches))
    for index in range(len(blocks)):
        tensors = {"norm": student.vectors[index]["norm"] * (1 + norms[index].change)}
        for role, part in student.parts(index).items():
            tensors[f"{role}.scales"] = round_scale(part.scales * (1 + state[index, role].change)).half()
        work.save(scales_name(index), tensors)


def _batches(n_windows: int, settings: TuneConfig) -> list[Tensor]:
    generator = torch.Generator().manual_seed(settings.seed)
    batches: list[Tensor] = []
    for _ in range(settings.n_epochs):
        batches += torch.randperm(n_windows, generator=generator).split(settings.batch_windows)
    return batches


def _scale_gradient(gradient: Tensor, part: Part) -> Tensor:
    """From the gradient of a weight (rows, columns) to that of its scales' relative change (rows, n_groups)."""
    product = gradient * part.values
    padded = F.pad(product, (0, -product.shape[1] % part.group))
    return padded.unflatten(1, (-1, part.group)).sum(2) * part.scales
