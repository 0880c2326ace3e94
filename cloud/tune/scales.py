"""Tunes what is stored as float (group scales and norm gains) by distillation; the codes stay as they are.

The full level learns to predict what the source predicts on calibration text; then levels drawn at random do so with
the versions of weights that the full level does not use, so that it stays as it is. Source: end-to-end training of
quantization parameters, EfficientQAT (arXiv 2407.11062), here with KL to the source as the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from edgesdk.cloud.config import TuneConfig
from edgesdk.cloud.quantize.block import file_order
from edgesdk.cloud.quantize.grid import round_scale
from edgesdk.cloud.reference import Decoder, mask_block, product_dtype
from edgesdk.cloud.stored import scales_name
from edgesdk.cloud.tune.adam import Adam, draw, rate_factor, shuffled_batches
from edgesdk.cloud.tune.gradients import divergence_gradients
from edgesdk.cloud.tune.student import Part, Student
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["tune_scales"]

Progress = Callable[[int, int], None]


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
    per_epoch = math.ceil(len(windows) / settings.batch_windows)
    n_steps = per_epoch * sum(n for n, _ in phases)
    done = 0
    for n_epochs, levels in phases:
        batches = shuffled_batches(len(windows), n_epochs, settings.batch_windows, settings.seed)
        drawn = draw(levels, len(batches), settings.seed)
        for count, (batch, level) in enumerate(zip(batches, drawn, strict=True), 1):
            rate = settings.rate * rate_factor(count, len(batches))
            tuner.step(source, states[batch], windows[batch], level, rate)
            done += 1
            if progress:
                progress(done, n_steps)
    for index in range(len(blocks)):
        work.save(scales_name(index), tuner.result(index))


class _Tuner:
    """What changes: the scales of every version that a level uses, and the norm gains.

    A parameter p is held as p (1 + change), and the change is what is trained.
    """

    def __init__(self, student: Student) -> None:
        self._student = student
        self._scales: dict[tuple[int, str, int], Adam] = {}
        self._norms = [Adam(torch.zeros_like(vectors["norm"])) for vectors in student.vectors]

    def step(self, source: Decoder, states: Tensor, tokens: Tensor, level: int, rate: float) -> None:
        """One step of the versions that a level uses: all at the top, else those that the top does not use."""
        student, blocks = self._student, source.config.blocks
        top = len(student.ladder) - 1
        plan = student.ladder[level]
        decoder = student.decoder(level, self._scale, lambda index: self._norms[index].value)

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
        tensors = {"norm": self._student.vectors[index]["norm"] * (1 + self._norms[index].value)}
        for (block, role, bits), state in self._scales.items():
            if block == index:
                scales = self._student.part(index, role, bits).scales
                tensors[f"{role}.{bits}.scales"] = round_scale(scales * (1 + state.value)).half()
        return tensors

    def _state(self, index: int, role: str, bits: int) -> Adam:
        key = (index, role, bits)
        if key not in self._scales:
            self._scales[key] = Adam(torch.zeros_like(self._student.part(index, role, bits).scales))
        return self._scales[key]

    def _scale(self, index: int, role: str, bits: int) -> Tensor:
        return self._state(index, role, bits).value


def _scale_gradient(gradient: Tensor, part: Part) -> Tensor:
    """From the gradient of a weight (rows, columns) to that of its scales' relative change (rows, n_groups)."""
    product = gradient * part.values
    padded = F.pad(product, (0, -product.shape[1] % part.group))
    return padded.unflatten(1, (-1, part.group)).sum(2) * part.scales
