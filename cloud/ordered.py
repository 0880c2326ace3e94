"""The sorted float model, one block at a time, computed from the checkpoint and the moments when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from torch import Tensor

from edgesdk.cloud.calibrate import Calibration
from edgesdk.cloud.order import block_order
from edgesdk.cloud.reference import BlockWeights, Decoder
from edgesdk.cloud.sort import Order, sort_block, sort_moments

__all__ = ["SortedModel"]

T = TypeVar("T")


class SortedModel:
    """decoder: the sorted model; moments(i): of its block i, which follow the order. method: a name in rank.METHODS.

    The block that was asked for last stays in memory, until another is asked for or `forget` is called.
    """

    def __init__(self, source: Decoder, calibration: Calibration, method: str) -> None:
        self._source, self._calibration, self._method = source, calibration, method
        self.moments = _Latest(self._moments)
        self._weights = _Latest(self._sorted(source))
        self.decoder = replace(source, block_weights=self._weights)

    def sort(self, decoder: Decoder) -> Decoder:
        """The sorted self of the source model in any dtype."""
        return replace(decoder, block_weights=self._sorted(decoder))

    def forget(self) -> None:
        """Lets go of the block in memory."""
        self.moments.forget()
        self._weights.forget()

    def _sorted(self, decoder: Decoder) -> Callable[[int], BlockWeights]:
        def load(index: int) -> BlockWeights:
            order = self._order(index)
            return sort_block(decoder.config.blocks[index], decoder.block_weights(index), order)

        return load

    def _order(self, index: int) -> Order:
        block = self._source.config.blocks[index]
        return block_order(block, self._source.block_weights, self._calibration, index, self._method)

    def _moments(self, index: int) -> dict[str, Tensor]:
        order = self._order(index)
        return sort_moments(self._source.config.blocks[index], self._calibration.moments(index), order)


class _Latest(Generic[T]):
    """A function of a block's index; its last result is kept, and let go of before the next is made."""

    def __init__(self, load: Callable[[int], T]) -> None:
        self._load = load
        self._kept: dict[int, T] = {}

    def __call__(self, index: int) -> T:
        if index not in self._kept:
            self.forget()
            self._kept[index] = self._load(index)
        return self._kept[index]

    def forget(self) -> None:
        self._kept.clear()
