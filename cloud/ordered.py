"""The sorted float model, one block at a time, computed from the checkpoint and the moments when it is needed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from torch import Tensor

from edgesdk.cloud.calibrate import Calibration
from edgesdk.cloud.rank import METHODS
from edgesdk.cloud.reference import BlockWeights, Decoder
from edgesdk.cloud.sort import Order, sort_block, sort_moments

__all__ = ["SortedModel"]


class SortedModel:
    """decoder: the sorted model; moments(i): of its block i, which follow the order. method: a name in rank.METHODS."""

    def __init__(self, source: Decoder, calibration: Calibration, method: str) -> None:
        self._source, self._calibration, self._method = source, calibration, method
        self._orders: dict[int, Order] = {}
        self.moments = lru_cache(maxsize=2)(self._moments)
        self.decoder = self.sort(source)

    def sort(self, decoder: Decoder) -> Decoder:
        """The sorted self of the source model in any dtype."""

        def load(index: int) -> BlockWeights:
            return sort_block(decoder.config.blocks[index], decoder.block_weights(index), self._order(index))

        return replace(decoder, block_weights=lru_cache(maxsize=2)(load))

    def _order(self, index: int) -> Order:
        if index not in self._orders:
            block = self._source.config.blocks[index]
            weights, moments = self._source.block_weights(index), self._calibration.moments(index)
            self._orders[index] = METHODS[self._method](block, weights, moments)
        return self._orders[index]

    def _moments(self, index: int) -> dict[str, Tensor]:
        return sort_moments(self._source.config.blocks[index], self._calibration.moments(index), self._order(index))
