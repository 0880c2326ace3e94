"""Recovery: levels below the full one learn, through levels drawn at random, to predict what the source predicts.

Self-distillation through nested levels as in UniQL (arXiv 2512.03383), but of what smaller levels own: the scales of
versions that the full level does not use, and the bias of each level. So the full level stays as it is, codes are not
made again, and what is trained sees the very errors that it makes up for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from edgesdk.cloud.config import RecoverConfig
from edgesdk.cloud.quantize.block import file_order
from edgesdk.cloud.reference import Decoder, mask_block, product_dtype
from edgesdk.cloud.stored import scales_name
from edgesdk.cloud.tune.adam import Adam, draw, rate_factor, shuffled_batches
from edgesdk.cloud.tune.gradients import divergence_gradients
from edgesdk.cloud.tune.scales import ScaleChanges
from edgesdk.cloud.tune.student import Student
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["recover_levels"]

Progress = Callable[[int, int], None]


def recover_levels(
    source: Decoder,
    student: Student,
    windows: Tensor,
    settings: RecoverConfig,
    work: WorkDirectory,
    progress: Progress | None = None,
) -> None:
    """Writes each block's scales and biases into `work`; a finished run is not repeated.

    source: the float model; windows: (n_windows, tokens) calibration text, seen settings.n_epochs times
    """
    n_blocks = len(source.config.blocks)
    if all(work.has(scales_name(index)) for index in range(n_blocks)):
        return
    trainer = _Trainer(source, student, settings)
    with torch.no_grad():
        states = source.final_states(windows, settings.batch_windows, product_dtype())
    batches = shuffled_batches(len(windows), settings.n_epochs, settings.batch_windows, settings.seed)
    levels = draw(range(len(student.ladder) - 1), len(batches), settings.seed)
    for step, (batch, level) in enumerate(zip(batches, levels, strict=True), 1):
        trainer.step(states[batch], windows[batch], level, rate_factor(step, len(batches)))
        if progress:
            progress(step, len(batches))
    for index in range(n_blocks):
        work.save(scales_name(index), trainer.result(index))


class _Trainer:
    """Scales and biases, and the model that they belong to."""

    def __init__(self, source: Decoder, student: Student, settings: RecoverConfig) -> None:
        self._source, self._student, self._settings = source, student, settings
        self._scales, self._biases = ScaleChanges(student), _BiasChanges(student, settings.n_knots)

    def step(self, states: Tensor, tokens: Tensor, level: int, factor: float) -> None:
        """One step at a level below the full one; states: the source's last, of these tokens; factor: of the rates."""
        blocks, plan, full = self._source.config.blocks, self._student.ladder[level], self._student.ladder[-1]

        def see(index: int, gradients: Mapping[str, Tensor]) -> None:
            block = blocks[index]
            own = mask_block(block, {**self._student.vectors[index], **gradients}, plan.kept[index])
            for weight, bits, shared in zip(block.weights, plan.bits[index], full.bits[index], strict=True):
                if bits != shared:
                    gradient = file_order(block, weight, own[weight.role])
                    self._scales.step(index, weight.role, bits, gradient, self._settings.rate * factor)
            self._biases.step(index, level, gradients["bias"], self._settings.bias_rate * factor)

        bias = partial(self._biases.value, level=level)
        decoder = self._student.decoder(level, self._scales.value, None, bias)
        divergence_gradients(self._source, states, decoder, tokens, see, relative=True)

    def result(self, index: int) -> dict[str, Tensor]:
        """A block's scales and biases, as the artifact stores them."""
        return {"bias": self._biases.result(index), **self._scales.tensors(index)}


class _BiasChanges:
    """Of each block, linear between knots along the ladder, in units of how large its biases are.

    So few steps are enough for many levels. The full level's bias does not change.
    """

    def __init__(self, student: Student, n_knots: int) -> None:
        self._biases = student.biases
        self._units = [float(own.square().mean().sqrt()) for own in student.biases]
        n_smaller = len(student.ladder) - 1
        at = torch.linspace(0, min(n_knots, n_smaller) - 1, n_smaller)
        knots = torch.arange(min(n_knots, n_smaller))
        self._shares = (1 - (at[:, None] - knots).abs()).clamp(min=0)  # (n_smaller, n_knots), rows sum to 1
        self._changes = [Adam(torch.zeros(len(knots), own.shape[1])) for own in student.biases]

    def value(self, index: int, level: int) -> Tensor:
        """The change (d_model,) of a level's bias."""
        return self._units[index] * (self._shares[level] @ self._changes[index].value)

    def step(self, index: int, level: int, gradient: Tensor, rate: float) -> None:
        """gradient: (d_model,) of the level's bias."""
        self._changes[index].step(torch.outer(self._shares[level], self._units[index] * gradient), rate)

    def result(self, index: int) -> Tensor:
        """A block's biases (n_levels, d_model)."""
        out = self._biases[index].clone()
        out[:-1] += self._units[index] * (self._shares @ self._changes[index].value)
        return out
