"""Recovery: adapters that make the ladder's levels behave like the source, trained through levels drawn at random.

Masked LoRA with self-distillation, as in UniQL (arXiv 2512.03383): one set of adapters, masks by the function that
cuts levels, the unpruned float model as the teacher. A level's quantization error, measured before, stays on its
weights while they learn. What was learned is merged into the float weights, which are then quantized anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from edgesdk.cloud.adapters import adapter_name, as_matrix
from edgesdk.cloud.config import RecoverConfig
from edgesdk.cloud.families.blocks import Block
from edgesdk.cloud.reference import Decoder, mask_block, product_dtype
from edgesdk.cloud.tune.adam import Adam, draw, rate_factor, shuffled_batches
from edgesdk.cloud.tune.gradients import divergence_gradients
from edgesdk.cloud.tune.student import Student
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["train_adapters"]

_FULL_SHARE = 4  # one step in so many is of the full level

Progress = Callable[[int, int], None]


def train_adapters(
    source: Decoder,
    student: Student,
    windows: Tensor,
    settings: RecoverConfig,
    work: WorkDirectory,
    progress: Progress | None = None,
) -> None:
    """Writes each block's adapters into `work`; a finished run is not repeated.

    source: the float model; windows: (n_windows, tokens) calibration text, seen settings.n_epochs times
    """
    blocks = source.config.blocks
    if all(work.has(adapter_name(index)) for index in range(len(blocks))):
        return
    generator = torch.Generator().manual_seed(settings.seed)
    adapters = [
        _Adapters(block, student.source.block_weights(i), settings, generator) for i, block in enumerate(blocks)
    ]
    with torch.no_grad():
        states = source.final_states(windows, settings.batch_windows, product_dtype())
    top = len(student.ladder) - 1
    batches = shuffled_batches(len(windows), settings.n_epochs, settings.batch_windows, settings.seed)
    levels = draw([*range(top), *[top] * max(1, top // (_FULL_SHARE - 1))], len(batches), settings.seed)
    for step, (batch, level) in enumerate(zip(batches, levels, strict=True), 1):
        rate = settings.rate * rate_factor(step, len(batches))
        _train(source, student, adapters, states[batch], windows[batch], level, rate)
        if progress:
            progress(step, len(batches))
    for index, own in enumerate(adapters):
        work.save(adapter_name(index), own.tensors())


def _train(
    source: Decoder,
    student: Student,
    adapters: Sequence[_Adapters],
    states: Tensor,
    tokens: Tensor,
    level: int,
    rate: float,
) -> None:
    """One step of one level; states: the source's last, of these tokens."""
    kept = student.ladder[level].kept

    def see(index: int, gradients: Mapping[str, Tensor]) -> None:
        block = source.config.blocks[index]
        adapters[index].step(mask_block(block, {**student.vectors[index], **gradients}, kept[index]), rate)

    decoder = student.decoder(level, adapters=lambda index: adapters[index].tensors())
    divergence_gradients(source, states, decoder, tokens, see, relative=True)


class _Adapters:
    """Of one block."""

    def __init__(
        self, block: Block, weights: Mapping[str, Tensor], settings: RecoverConfig, generator: torch.Generator
    ) -> None:
        self._block, self._scale = block, settings.alpha / settings.rank
        self._a: dict[str, Adam] = {}
        self._b: dict[str, Adam] = {}
        for weight in block.weights:
            rows, columns = as_matrix(weight, weights[weight.role]).shape
            start = torch.randn(settings.rank, columns, generator=generator) / columns**0.5
            self._a[weight.role], self._b[weight.role] = Adam(start), Adam(torch.zeros(rows, settings.rank))

    def step(self, gradients: Mapping[str, Tensor], rate: float) -> None:
        """gradients: of the weights, by role, in natural order."""
        for weight in self._block.weights:
            gradient = self._scale * as_matrix(weight, gradients[weight.role])
            a, b = self._a[weight.role], self._b[weight.role]
            of_a, of_b = b.value.T @ gradient, gradient @ a.value.T
            a.step(of_a, rate)
            b.step(of_b, rate)

    def tensors(self) -> dict[str, Tensor]:
        """As `with_adapters` takes them."""
        out = {f"{role}.a": state.value for role, state in self._a.items()}
        return out | {f"{role}.b": self._scale * state.value for role, state in self._b.items()}
