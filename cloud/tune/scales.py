"""Tunes what is stored as float (group scales and norm gains) by distillation; the codes stay as they are.

The full level learns to predict what the source predicts on calibration text. Source: end-to-end training of
quantization parameters, EfficientQAT (arXiv 2407.11062), here with KL to the source as the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from edgesdk.cloud.config import TuneConfig
from edgesdk.cloud.quantize.block import file_order
from edgesdk.cloud.quantize.grid import round_scale
from edgesdk.cloud.reference import Decoder, product_dtype
from edgesdk.cloud.stored import scales_name
from edgesdk.cloud.tune.adam import Adam, rate_factor, shuffled_batches
from edgesdk.cloud.tune.gradients import divergence_gradients
from edgesdk.cloud.tune.student import Part, Student
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["ScaleChanges", "tune_scales"]

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

    source: the float model; windows: (n_windows, tokens) calibration text, seen settings.n_epochs times
    """
    blocks = source.config.blocks
    if all(work.has(scales_name(index)) for index in range(len(blocks))):
        return
    scales = ScaleChanges(student)
    norms = [Adam(torch.zeros_like(vectors["norm"])) for vectors in student.vectors]
    decoder = student.decoder(-1, scales.value, lambda index: norms[index].value)
    with torch.no_grad():
        states = source.final_states(windows, settings.batch_windows, product_dtype())
    # As large as a block for every few of them: not in memory.
    shape = len(blocks), min(settings.batch_windows, len(windows)), windows.shape[1], source.config.d_model
    room = student.weights.codes.zeros(shape)
    batches = shuffled_batches(len(windows), settings.n_epochs, settings.batch_windows, settings.seed)
    for count, batch in enumerate(batches, 1):
        rate = settings.rate * rate_factor(count, len(batches))

        def see(index: int, gradients: Mapping[str, Tensor], rate: float = rate) -> None:
            for weight, bits in zip(blocks[index].weights, student.ladder[-1].bits[index], strict=True):
                gradient = file_order(blocks[index], weight, gradients[weight.role])
                scales.step(index, weight.role, bits, gradient, rate)
            norms[index].step(gradients["norm"] * student.vectors[index]["norm"], rate)

        divergence_gradients(source, states[batch], decoder, windows[batch], see, room=room)
        if progress:
            progress(count, len(batches))
    for index in range(len(blocks)):
        norm = student.vectors[index]["norm"] * (1 + norms[index].value)
        work.save(scales_name(index), {"norm": norm, **scales.tensors(index)})


class ScaleChanges:
    """A scale s is held as s (1 + change), and the change is what is trained; by block index, role and bits."""

    def __init__(self, student: Student) -> None:
        self._student = student
        self._changes: dict[tuple[int, str, int], Adam] = {}

    def value(self, index: int, role: str, bits: int) -> Tensor:
        """The changes (rows, n_groups) of a version of a weight."""
        return self._change(index, role, bits).value

    def step(self, index: int, role: str, bits: int, gradient: Tensor, rate: float) -> None:
        """gradient: (rows, columns) of the weight, in file order."""
        part = self._student.part(index, role, bits)
        self._change(index, role, bits).step(_scale_gradient(gradient, part), rate)

    def tensors(self, index: int) -> dict[str, Tensor]:
        """A block's changed scales, as the artifact stores them, by `ROLE.BITS.scales`."""
        out = {}
        for (block, role, bits), change in self._changes.items():
            if block == index:
                scales = self._student.part(index, role, bits).scales
                out[f"{role}.{bits}.scales"] = round_scale(scales * (1 + change.value)).half()
        return out

    def _change(self, index: int, role: str, bits: int) -> Adam:
        key = (index, role, bits)
        if key not in self._changes:
            zeros = self._student.weights.codes.zeros  # as many as scales of all blocks: not in memory
            self._changes[key] = Adam(zeros(self._student.part(index, role, bits).scales.shape), zeros)
        return self._changes[key]


def _scale_gradient(gradient: Tensor, part: Part) -> Tensor:
    """From the gradient of a weight (rows, columns) to that of its scales' relative change (rows, n_groups)."""
    product = gradient * part.values
    padded = F.pad(product, (0, -product.shape[1] % part.group))
    return padded.unflatten(1, (-1, part.group)).sum(2) * part.scales
