"""Recovery: adapters that make smaller sizes behave like the source, trained through sizes drawn at random.

Masked LoRA with self-distillation, as in UniQL (arXiv 2512.03383): one set of adapters, masks by the function that
cuts levels, the unpruned float model as the teacher, and the full size among those drawn. All of it in float: adapters
that see quantization errors learn to cancel them, and are wrong about those of the codes that are made afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from edgesdk.cloud.adapters import adapter_name, as_matrix, with_adapters
from edgesdk.cloud.config import RecoverConfig
from edgesdk.cloud.families.blocks import Block
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.reference import BlockWeights, Decoder, mask_block, product_dtype
from edgesdk.cloud.repair import repaired_bias
from edgesdk.cloud.sizes import Allocation
from edgesdk.cloud.tune.adam import Adam, draw, rate_factor, shuffled_batches
from edgesdk.cloud.tune.gradients import divergence_gradients
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["train_adapters"]

_FULL_SHARE = 4  # one step in so many is of the full size
_CACHE_ELEMENTS = 1 << 28

Progress = Callable[[int, int], None]


def train_adapters(
    source: Decoder,
    ordered: SortedModel,
    allocations: Sequence[Allocation],
    windows: Tensor,
    settings: RecoverConfig,
    work: WorkDirectory,
    progress: Progress | None = None,
) -> None:
    """Writes each block's adapters into `work`; a finished run is not repeated.

    source: the float model; allocations: the sizes of the ladder's levels, the full ones last
    windows: (n_windows, tokens) calibration text, seen settings.n_epochs times
    """
    if all(work.has(adapter_name(index)) for index in range(len(source.config.blocks))):
        return
    sizes = list(dict.fromkeys(allocations))
    trainer = _Trainer.start(source, ordered, sizes, settings)
    with torch.no_grad():
        states = source.final_states(windows, settings.batch_windows, product_dtype())
    batches = shuffled_batches(len(windows), settings.n_epochs, settings.batch_windows, settings.seed)
    full = len(sizes) - 1
    drawn = draw([*range(full), *[full] * max(1, full // (_FULL_SHARE - 1))], len(batches), settings.seed)
    for step, (batch, at) in enumerate(zip(batches, drawn, strict=True), 1):
        trainer.step(states[batch], windows[batch], at, settings.rate * rate_factor(step, len(batches)))
        if progress:
            progress(step, len(batches))
    for index, own in enumerate(trainer.adapters):
        work.save(adapter_name(index), own.tensors())


@dataclass(frozen=True)
class _Trainer:
    """biases: each block's (n_sizes, d_model) repairs of what is cut; weights: of the sorted blocks."""

    source: Decoder
    sizes: Sequence[Allocation]
    adapters: Sequence[_Adapters]
    biases: Sequence[Tensor]
    weights: Callable[[int], BlockWeights]

    @classmethod
    def start(
        cls, source: Decoder, ordered: SortedModel, sizes: Sequence[Allocation], settings: RecoverConfig
    ) -> _Trainer:
        generator = torch.Generator().manual_seed(settings.seed)
        adapters, biases, n_elements = [], [], 1
        for index, block in enumerate(source.config.blocks):
            weights, moments = ordered.decoder.block_weights(index), ordered.moments(index)
            adapters.append(_Adapters(block, weights, settings, generator))
            biases.append(torch.stack([repaired_bias(block, weights, kept[index], moments) for kept in sizes]))
            n_elements = max(n_elements, sum(weights[weight.role].numel() for weight in block.weights))
        load = lru_cache(maxsize=max(2, _CACHE_ELEMENTS // n_elements))(ordered.decoder.block_weights)
        return cls(source, sizes, adapters, biases, load)

    def step(self, states: Tensor, tokens: Tensor, at: int, rate: float) -> None:
        """One step at one of the sizes; states: the source's last, of these tokens."""
        blocks, kept = self.source.config.blocks, self.sizes[at]

        def load(index: int) -> BlockWeights:
            changed = with_adapters(blocks[index], self.weights(index), self.adapters[index].tensors())
            return mask_block(blocks[index], {**changed, "bias": self.biases[index][at]}, kept[index])

        def see(index: int, gradients: Mapping[str, Tensor]) -> None:
            masked = mask_block(blocks[index], {**self.weights(index), **gradients}, kept[index])
            self.adapters[index].step(masked, rate)

        student = replace(self.source, block_weights=load)
        divergence_gradients(self.source, states, student, tokens, see, relative=True)


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
