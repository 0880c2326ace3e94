"""Levels as the artifact holds them, as torch decoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.pack import QuantizedWeight
from edgesdk.cloud.quantize.block import multiplied, natural_order
from edgesdk.cloud.reference import MATRICES, BlockWeights, Decoder, mask_block
from edgesdk.cloud.repair import level_biases
from edgesdk.cloud.sizes import LevelPlan, kept_shapes, model_panels, model_weights
from edgesdk.cloud.stored import StoredWeights

__all__ = ["Part", "Student"]

_SMALL_ELEMENTS = 1 << 28  # of the weights of a model's blocks
_LATEST = 4  # weights of a large model that are kept


@dataclass(frozen=True)
class Part:
    """A stored weight in file order: values (rows, columns) int8, scales (rows, n_groups) float32."""

    values: Tensor
    scales: Tensor
    group: int


@dataclass(frozen=True)
class Student:
    """vectors: each block's norm and frequencies; biases: each block's (n_levels, d_model) repairs.

    source: the sorted float model, for its sizes and norms.
    """

    source: Decoder
    weights: StoredWeights
    ladder: Sequence[LevelPlan]
    vectors: tuple[BlockWeights, ...]
    biases: tuple[Tensor, ...]

    @classmethod
    def start(cls, ordered: SortedModel, weights: StoredWeights, ladder: Sequence[LevelPlan]) -> Student:
        """Reads every block of the source once, for its vectors and for the biases that repair the levels."""
        vectors: list[BlockWeights] = []
        biases: list[Tensor] = []
        for index in range(len(ordered.decoder.config.blocks)):
            own = {name: t for name, t in ordered.decoder.block_weights(index).items() if name not in MATRICES}
            norm = weights.norm(index)
            vectors.append(own if norm is None else {**own, "norm": torch.from_numpy(norm)})
            biases.append(level_biases(ordered, weights, ladder, index))
        return cls(ordered.decoder, weights, ladder, tuple(vectors), tuple(biases))

    @cached_property
    def part(self) -> Callable[[int, str, int], Part]:
        """A weight of a block, by role and bits. All of a small model are kept in memory, the last of a large one."""

        def load(index: int, role: str, bits: int) -> Part:
            return _part(self.weights.weight(index, role, bits))

        config = self.source.config
        shapes = (kept_shapes(block, [axis.size for axis in block.axes], config.d_model) for block in config.blocks)
        n_elements = sum(rows * columns for own in shapes for rows, columns in own.values())
        return lru_cache(maxsize=None if n_elements <= _SMALL_ELEMENTS else _LATEST)(load)

    def parts(self, level: int, index: int) -> dict[str, Part]:
        """A block's weights at a level, by role, in full size."""
        block = self.source.config.blocks[index]
        bits = self.ladder[level].bits[index]
        return {w.role: self.part(index, w.role, b) for w, b in zip(block.weights, bits, strict=True)}

    def decoder(
        self,
        level: int = -1,
        scale_change: Callable[[int, str, int], Tensor] | None = None,
        norm_change: Callable[[int], Tensor] | None = None,
        bias_change: Callable[[int], Tensor] | None = None,
    ) -> Decoder:
        """A level as a model of full size in which what it gives up is masked.

        scale_change, norm_change: relative changes of scales (by block, role and bits) and of norm gains (by block)
        bias_change: what is added to the biases of blocks
        """
        plan, config = self.ladder[level], self.source.config

        def load(index: int) -> BlockWeights:
            block, out = config.blocks[index], dict(self.vectors[index])
            for weight, bits in zip(block.weights, plan.bits[index], strict=True):
                part = self.part(index, weight.role, bits)
                scales = part.scales * (1 + scale_change(index, weight.role, bits)) if scale_change else part.scales
                out[weight.role] = natural_order(block, weight, multiplied(part.values, scales, part.group))
            out["bias"] = self.biases[index][level]
            if bias_change:
                out["bias"] = out["bias"] + bias_change(index)
            if norm_change:
                out["norm"] = out["norm"] * (1 + norm_change(index))
            return mask_block(block, out, plan.kept[index])

        held = [self._held(name, plan) for name in model_weights(config)]
        return Decoder(config, held[0], self.source.final_norm, held[-1], load)

    def _held(self, name: str, plan: LevelPlan) -> Tensor:
        """The embedding or the head, dequantized, as a file that is mapped."""
        own = zip(model_panels(self.source.config), plan.model_bits, strict=True)
        panels = [(panel, bits) for panel, bits in own if panel.weight == name]

        def make() -> Tensor:
            tables = {bits: _part(self.weights.weight(None, name, bits)) for _, bits in panels}
            out = torch.empty(self.source.config.vocab_size, self.source.config.d_model)
            for panel, bits in panels:
                rows, part = slice(panel.begin, panel.end), tables[bits]
                out[rows] = multiplied(part.values[rows], part.scales[rows], part.group)
            return out

        return self.weights.codes.mapped(f"values-{name}-{''.join(str(bits) for _, bits in panels)}.safetensors", make)


def _part(quantized: QuantizedWeight) -> Part:
    return Part(torch.from_numpy(quantized.values()), torch.from_numpy(quantized.scales).float(), quantized.group)
