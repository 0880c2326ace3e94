"""The full level as the artifact holds it, as a torch decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.pack import QuantizedWeight
from edgesdk.cloud.quantize.block import dequantized, multiplied, natural_order, quantize_rows_8bit
from edgesdk.cloud.reference import MATRICES, BlockWeights, Decoder
from edgesdk.cloud.repair import repaired_bias
from edgesdk.cloud.stored import StoredWeights

__all__ = ["Part", "Student"]

_CACHE_ELEMENTS = 1 << 30


@dataclass(frozen=True)
class Part:
    """A stored weight in file order: values (rows, columns) int8, scales (rows, n_groups) float32."""

    values: Tensor
    scales: Tensor
    group: int


@dataclass(frozen=True)
class Student:
    """vectors: each block's norm, frequencies and biases. source: the sorted float model, for its sizes and norms."""

    source: Decoder
    weights: StoredWeights
    vectors: tuple[BlockWeights, ...]
    embedding: Tensor
    head: Tensor

    @classmethod
    def start(cls, ordered: SortedModel, weights: StoredWeights, group: int) -> Student:
        """Reads every block of the source once, for its vectors and for the biases that repair the full level."""
        source = ordered.decoder
        vectors: list[BlockWeights] = []
        for index, block in enumerate(source.config.blocks):
            exact = source.block_weights(index)
            output = next(weight for weight in block.weights if weight.columns is not None)
            deployed = {output.role: dequantized(block, output, weights.weight(index, output.role))}
            full = [axis.size for axis in block.axes]
            bias = repaired_bias(block, exact, full, ordered.moments(index), deployed)
            norm = weights.norm(index)
            own = {name: tensor for name, tensor in exact.items() if name not in MATRICES}
            own |= {"bias": bias} if norm is None else {"bias": bias, "norm": torch.from_numpy(norm)}
            vectors.append(own)
        embedding = _held(quantize_rows_8bit(source.embedding, group))
        head = embedding if source.config.tied_head else _held(quantize_rows_8bit(source.head, group))
        return cls(source, weights, tuple(vectors), embedding, head)

    @cached_property
    def parts(self) -> Callable[[int], Mapping[str, Part]]:
        """The weights of a block by role; as many blocks are kept in memory as hold 2^30 elements."""
        blocks = self.source.config.blocks

        def load(index: int) -> Mapping[str, Part]:
            found = {w.role: self.weights.weight(index, w.role) for w in blocks[index].weights}
            return {role: _part(quantized) for role, quantized in found.items()}

        first = sum(part.values.numel() for part in load(0).values()) + 1
        return lru_cache(maxsize=max(2, _CACHE_ELEMENTS // first))(load)

    def decoder(
        self,
        scale_change: Callable[[int, str], Tensor] | None = None,
        norm_change: Callable[[int], Tensor] | None = None,
    ) -> Decoder:
        """The model; with relative changes of its scales (by block and role) and of its norm gains (by block)."""
        blocks = self.source.config.blocks

        def load(index: int) -> BlockWeights:
            parts, out = self.parts(index), dict(self.vectors[index])
            for weight in blocks[index].weights:
                part = parts[weight.role]
                scales = part.scales * (1 + scale_change(index, weight.role)) if scale_change else part.scales
                matrix = multiplied(part.values, scales, part.group)
                out[weight.role] = natural_order(blocks[index], weight, matrix)
            if norm_change:
                out["norm"] = out["norm"] * (1 + norm_change(index))
            return out

        return Decoder(self.source.config, self.embedding, self.source.final_norm, self.head, load)


def _part(quantized: QuantizedWeight) -> Part:
    return Part(torch.from_numpy(quantized.values()), torch.from_numpy(quantized.scales).float(), quantized.group)


def _held(quantized: QuantizedWeight) -> Tensor:
    part = _part(quantized)
    return multiplied(part.values, part.scales, part.group)
