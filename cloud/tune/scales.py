"""Tunes what is stored as float (group scales and norm gains) by distillation; the codes stay as they are.

The full level learns to predict what the source predicts on calibration text; then levels drawn at random do so with
the versions of weights that the full level does not use, so that it stays as it is. Source: end-to-end training of
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
from edgesdk.cloud.reference import Decoder, mask_block, product_dtype
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
    count: int = 0

    def __post_init__(self) -> None:
        self.mean, self.square = torch.zeros_like(self.change), torch.zeros_like(self.change)

    def step(self, gradient: Tensor, rate: float) -> None:
        """gradient: of the change; rate: its largest size in this step."""
        self.count += 1
        self.mean.lerp_(gradient, 1 - _BETAS[0])
        self.square.lerp_(gradient.square(), 1 - _BETAS[1])
        mean = self.mean / (1 - _BETAS[0] ** self.count)
        self.change -= rate * mean / ((self.square / (1 - _BETAS[1] ** self.count)).sqrt() + 1e-12)


def tune_scales(
    source: Decoder,
    student: Student,
    windows: Tensor,
    settings: TuneConfig,
    work: WorkDirectory,
    progress: Progress | None = None,
) -> None:
    """Writes each block's tuned scales and norm gain into `work`; a finished run is not repeated.

    source: the float model; windows: (n_windows, tokens) calibration text, seen settings.n_epochs times by the full
    level and settings.n_level_epochs times by the levels below
    """
    blocks = source.config.blocks
    if all(work.has(scales_name(index)) for index in range(len(blocks))):
        return
    tuner = _Tuner(student)
    with torch.no_grad():
        states = source.final_states(windows, settings.batch_windows, product_dtype())
    top = len(student.ladder) - 1
    own = [k for k, level in enumerate(student.ladder) if level.bits != student.ladder[top].bits]
    phases = [(settings.n_epochs, [top]), (settings.n_level_epochs if own else 0, own)]
    n_steps = sum(len(_batches(len(windows), n, settings)) for n, _ in phases)
    done = 0
    for n_epochs, levels in phases:
        batches = _batches(len(windows), n_epochs, settings)
        drawn = _drawn(levels, len(batches), settings.seed)
        for count, (batch, level) in enumerate(zip(batches, drawn, strict=True), 1):
            decay = 0.5 * (1 + math.cos(math.pi * (count - 1) / len(batches)))
            rate = settings.rate * min(1.0, count / _WARM_UP) * decay
            tuner.step(source, states[batch], windows[batch], level, rate)
            done += 1
            if progress:
                progress(done, n_steps)
    for index in range(len(blocks)):
        work.save(scales_name(index), tuner.result(index))


class _Tuner:
    """What changes: the scales of every version that a level uses, and the norm gains."""

    def __init__(self, student: Student) -> None:
        self._student = student
        self._scales: dict[tuple[int, str, int], _Adam] = {}
        self._norms = [_Adam(torch.zeros_like(vectors["norm"])) for vectors in student.vectors]

    def step(self, source: Decoder, states: Tensor, tokens: Tensor, level: int, rate: float) -> None:
        """One step of the versions that a level uses: all at the top, else those that the top does not use."""
        student, blocks = self._student, source.config.blocks
        top = len(student.ladder) - 1
        plan = student.ladder[level]
        decoder = student.decoder(level, self._scale, lambda index: self._norms[index].change)

        def see(index: int, gradients: Mapping[str, Tensor]) -> None:
            own = mask_block(blocks[index], {**student.vectors[index], **gradients}, plan.kept[index])
            for position, weight in enumerate(blocks[index].weights):
                bits = plan.bits[index][position]
                if level == top or bits != student.ladder[top].bits[index][position]:
                    part = student.part(index, weight.role, bits)
                    gradient = _scale_gradient(file_order(blocks[index], weight, own[weight.role]), part)
                    self._state(index, weight.role, bits).step(gradient, rate)
            if level == top:
                self._norms[index].step(gradients["norm"] * student.vectors[index]["norm"], rate)

        divergence_gradients(source, states, decoder, tokens, see)

    def result(self, index: int) -> dict[str, Tensor]:
        """A block's tuned scales, by role and bits, and its norm gain."""
        tensors = {"norm": self._student.vectors[index]["norm"] * (1 + self._norms[index].change)}
        for (block, role, bits), state in self._scales.items():
            if block == index:
                scales = self._student.part(index, role, bits).scales
                tensors[f"{role}.{bits}.scales"] = round_scale(scales * (1 + state.change)).half()
        return tensors

    def _state(self, index: int, role: str, bits: int) -> _Adam:
        key = (index, role, bits)
        if key not in self._scales:
            self._scales[key] = _Adam(torch.zeros_like(self._student.part(index, role, bits).scales))
        return self._scales[key]

    def _scale(self, index: int, role: str, bits: int) -> Tensor:
        return self._state(index, role, bits).change


def _drawn(levels: list[int], n_steps: int, seed: int) -> list[int]:
    """Levels for so many steps: each comes up before any comes up again."""
    generator = torch.Generator().manual_seed(seed)
    drawn: list[int] = []
    while len(drawn) < n_steps:
        drawn += [levels[i] for i in torch.randperm(len(levels), generator=generator).tolist()]
    return drawn[:n_steps]


def _batches(n_windows: int, n_epochs: int, settings: TuneConfig) -> list[Tensor]:
    generator = torch.Generator().manual_seed(settings.seed)
    batches: list[Tensor] = []
    for _ in range(n_epochs):
        batches += torch.randperm(n_windows, generator=generator).split(settings.batch_windows)
    return batches


def _scale_gradient(gradient: Tensor, part: Part) -> Tensor:
    """From the gradient of a weight (rows, columns) to that of its scales' relative change (rows, n_groups)."""
    product = gradient * part.values
    padded = F.pad(product, (0, -product.shape[1] % part.group))
    return padded.unflatten(1, (-1, part.group)).sum(2) * part.scales
