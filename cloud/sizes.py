"""Bytes of packed block weights: of a block, and of a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgesdk.cloud.families.blocks import Block, ModelConfig
from edgesdk.formats.tiles import TILE_ROWS, packed_bytes

__all__ = [
    "Allocation",
    "LevelPlan",
    "ModelPanel",
    "PackedSizes",
    "full_allocation",
    "kept_shapes",
    "model_panels",
    "model_weights",
    "weight_group",
]

Allocation = tuple[tuple[int, ...], ...]
"""Per block, the kept size of each of its axes."""

_MODEL_PANELS = 8


@dataclass(frozen=True)
class ModelPanel:
    """Rows begin..end of the embedding or the head (`weight`), which have bits of their own; index: of its panels."""

    weight: str
    index: int
    begin: int
    end: int

    @property
    def name(self) -> str:
        """What losses and codes are filed under."""
        return f"{self.weight}.{self.index}"


@dataclass(frozen=True)
class LevelPlan:
    """What a level keeps of the model.

    kept: per block, the size of each of its axes; bits: per block, those of each of its weights, in declared order
    model_bits: those of each of `model_panels`
    """

    kept: Allocation
    bits: tuple[tuple[int, ...], ...]
    model_bits: tuple[int, ...]

    @classmethod
    def of(cls, config: ModelConfig, kept: Allocation, bits: int = 4, model_bits: int = 8) -> LevelPlan:
        """The same bits everywhere."""
        per_block = tuple((bits,) * len(block.weights) for block in config.blocks)
        return cls(kept, per_block, (model_bits,) * len(model_panels(config)))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LevelPlan:
        """Inverse of `dataclasses.asdict` and JSON."""
        kept, bits = (tuple(map(tuple, value[name])) for name in ("kept", "bits"))
        return cls(kept, bits, tuple(value["model_bits"]))

    def weight_bits(self, config: ModelConfig) -> dict[tuple[int, str], int]:
        """Bits by block index and role."""
        return {
            (index, weight.role): bits
            for index, (block, own) in enumerate(zip(config.blocks, self.bits, strict=True))
            for weight, bits in zip(block.weights, own, strict=True)
        }


@dataclass(frozen=True)
class PackedSizes:
    """Sizes before padding (SPEC.md rule 6.3). group: columns that share a scale."""

    config: ModelConfig
    group: int = 32

    def weights(self, index: int, kept: Sequence[int], bits: Sequence[int]) -> list[int]:
        """Bytes of each weight of a block that keeps `kept` of its axes, at `bits` of its weights."""
        block = self.config.blocks[index]
        shapes = kept_shapes(block, kept, self.config.d_model)
        return [
            packed_bytes(*shapes[w.role], b, weight_group(block, w.role, self.group)) if all(shapes[w.role]) else 0
            for w, b in zip(block.weights, bits, strict=True)
        ]

    def block(self, index: int, kept: Sequence[int], bits: Sequence[int] | None = None) -> int:
        """Bytes of one block; bits: of its weights, 4 by default."""
        return sum(self.weights(index, kept, bits or (4,) * len(self.config.blocks[index].weights)))

    def level(self, allocation: Allocation, bits: Sequence[Sequence[int]] | None = None) -> int:
        """Bytes of all blocks of a level."""
        return sum(self.block(i, kept, bits[i] if bits else None) for i, kept in enumerate(allocation))

    def model_panel(self, panel: ModelPanel, bits: int) -> int:
        """Bytes of some rows of the embedding or the head."""
        return packed_bytes(panel.end - panel.begin, self.config.d_model, bits, self.group)

    def model(self, bits: Sequence[int], weight: str | None = None) -> int:
        """Bytes of embedding and head, or of one of them, whose panels have these bits."""
        panels = zip(model_panels(self.config), bits, strict=True)
        return sum(self.model_panel(panel, own) for panel, own in panels if weight in (None, panel.weight))


def model_weights(config: ModelConfig) -> tuple[str, ...]:
    """The weights outside of blocks, of whose rows every level has all."""
    return ("embed",) if config.tied_head else ("embed", "head")


def model_panels(config: ModelConfig) -> tuple[ModelPanel, ...]:
    """The panels of `model_weights`: equal numbers of rows. Ids of tokens ascend with the merges that made them, so
    those of a panel are about equally frequent.
    """
    step = -(-config.vocab_size // (_MODEL_PANELS * TILE_ROWS)) * TILE_ROWS
    begins = range(0, config.vocab_size, step)
    return tuple(
        ModelPanel(name, index, begin, min(begin + step, config.vocab_size))
        for name in model_weights(config)
        for index, begin in enumerate(begins)
    )


def full_allocation(config: ModelConfig) -> Allocation:
    """Every axis at full size."""
    return tuple(tuple(axis.size for axis in block.axes) for block in config.blocks)


def kept_shapes(block: Block, kept: Sequence[int], d_model: int) -> dict[str, tuple[int, int]]:
    """Rows and columns of each weight of a block that keeps `kept` of its axes."""
    sizes = {axis.name: size for axis, size in zip(block.axes, kept, strict=True)}

    def extent(axis: tuple[str, int] | None) -> int:
        return d_model if axis is None else sizes[axis[0]] * axis[1]

    return {w.role: (extent(w.rows), extent(w.columns)) for w in block.weights}


def weight_group(block: Block, role: str, preferred: int) -> int:
    """Quantization group of a weight: `preferred`, or the largest below it that divides a step of its column axis."""
    columns = next(w.columns for w in block.weights if w.role == role)
    if columns is None:
        return preferred
    step = columns[1] * next(axis.quantum for axis in block.axes if axis.name == columns[0])
    return next(group for group in range(preferred, 0, -8) if step % group == 0)
