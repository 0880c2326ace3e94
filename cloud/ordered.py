"""The sorted float model, one block at a time, computed from the checkpoint and the moments when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from edgesdk.cloud.calibrate import Calibration
from edgesdk.cloud.order import block_order
from edgesdk.cloud.reference import BlockWeights, Decoder
from edgesdk.cloud.sort import Order, sort_block, sort_moments

__all__ = ["SortedModel"]


class SortedModel:
    """decoder: the sorted model; moments(i): of its block i, which follow the order. method: a name in rank.METHODS.

    The weights that were asked for last stay in memory, until others are asked for or `forget` is called.
    """

    def __init__(self, source: Decoder, calibration: Calibration, method: str) -> None:
        self._source, self._calibration, self._method = source, calibration, method
        self._weights = _Latest(self._sorted(source))
        self.decoder = replace(source, block_weights=self._weights)

    def sort(self, decoder: Decoder) -> Decoder:
        """The sorted self of the source model in any dtype."""
        return replace(decoder, block_weights=self._sorted(decoder))

    def forget(self) -> None:
        """Lets go of the weights in memory."""
        self._weights.forget()

    def moments(self, index: int) -> Mapping[str, Tensor]:
        """Moments of a sorted block, each sorted when it is looked up."""
        block = self._source.config.blocks[index]
        return sort_moments(block, self._calibration.moments(index), self._order(index))

    def _sorted(self, decoder: Decoder) -> Callable[[int], BlockWeights]:
        def load(index: int) -> BlockWeights:
            order = self._order(index)
            return sort_block(decoder.config.blocks[index], decoder.block_weights(index), order)

        return load

    def _order(self, index: int) -> Order:
        block = self._source.config.blocks[index]
        return block_order(block, self._source.block_weights, self._calibration, index, self._method)


class _Latest:
    """Weights of a block by its index; the last are kept, and let go of before others are loaded."""

    def __init__(self, load: Callable[[int], BlockWeights]) -> None:
        self._load = load
        self._kept: dict[int, BlockWeights] = {}

    def __call__(self, index: int) -> BlockWeights:
        if index not in self._kept:
            self.forget()
            self._kept[index] = self._load(index)
        return self._kept[index]

    def forget(self) -> None:
        self._kept.clear()
