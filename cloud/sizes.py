"""Bytes of packed block weights: of a block, and of a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgesdk.cloud.families.blocks import Block, ModelConfig
from edgesdk.formats.tiles import packed_bytes

__all__ = ["Allocation", "PackedSizes", "full_allocation", "kept_shapes", "weight_group"]

Allocation = tuple[tuple[int, ...], ...]
"""What a level keeps: per block, the kept size of each of its axes."""


@dataclass(frozen=True)
class PackedSizes:
    """Sizes before padding (SPEC.md rule 6.3). group: columns that share a scale.

    bits: of the weights, by block index and role, that are not held at 4 bits
    """

    config: ModelConfig
    group: int = 32
    bits: Mapping[tuple[int, str], int] = field(default_factory=dict)

    def block(self, index: int, kept: Sequence[int]) -> int:
        """Bytes of one block that keeps `kept` of its axes."""
        block = self.config.blocks[index]
        return sum(
            packed_bytes(rows, columns, self.bits.get((index, role), 4), weight_group(block, role, self.group))
            for role, (rows, columns) in kept_shapes(block, kept, self.config.d_model).items()
            if rows and columns
        )

    def level(self, allocation: Allocation) -> int:
        """Bytes of all blocks of a level."""
        return sum(self.block(index, kept) for index, kept in enumerate(allocation))


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
