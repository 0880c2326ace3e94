"""Blocks of columns on grids that runtimes know: even steps, value = (code - zero) * scale, or a table of values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgesdk.formats.exports.natural import Floats

__all__ = ["Blocks", "eight_bits", "four_bits", "on_table"]

_SHRINKS = (1.0, 0.95, 0.9, 0.85)  # of a block's range: large values are clipped where that lowers the squared error
_ANCHORS = (1.0, 0.9)  # of an end of a table: where the largest value of a block lies
_ROWS = 2048  # that are worked on at once


@dataclass(frozen=True)
class Blocks:
    """codes (rows, n_blocks, block) uint8, scales (rows, n_blocks) float32, zeros (rows, n_blocks) uint8.

    Columns that the weight lacks have the code of 0.
    """

    codes: NDArray[np.uint8]
    scales: Floats
    zeros: NDArray[np.uint8]

    def values(self) -> Floats:
        """What the codes stand for, (rows, n_blocks * block)."""
        wide = (self.codes.astype(np.float32) - self.zeros[..., None]) * self.scales[..., None]
        return wide.reshape(len(wide), -1)


def four_bits(weight: Floats, block: int) -> Blocks:
    """The grid of 16 steps with a zero of its own for each block that has the least squared error of a few."""
    parts = [_four_bits(_blocks(weight[begin : begin + _ROWS], block)) for begin in range(0, len(weight), _ROWS)]
    return Blocks(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("codes", "scales", "zeros")))


def eight_bits(weight: Floats, block: int) -> Blocks:
    """A grid of 255 steps around 128."""
    x = _blocks(weight, block)
    scales = np.maximum(np.abs(x).max(-1), np.float32(1e-12)) / np.float32(127)
    codes = (np.rint(x / scales[..., None]) + 128).astype(np.uint8)
    return Blocks(codes, scales, np.full(scales.shape, 128, np.uint8))


def on_table(weight: Floats, table: Floats, block: int) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Codes (rows, n_blocks, block) into a table (ascending, both signs) and scales (rows, n_blocks): least squares.

    The largest value of a block is laid on a few points near both ends of the table; the best of these is refined.
    """
    parts = [_on_table(_blocks(weight[begin : begin + _ROWS], block), table) for begin in range(0, len(weight), _ROWS)]
    return np.concatenate([codes for codes, _ in parts]), np.concatenate([scales for _, scales in parts])


def _blocks(weight: Floats, block: int) -> Floats:
    """(rows, columns) -> (rows, n_blocks, block), filled up with zeros."""
    rows, columns = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -columns % block)))
    return padded.reshape(rows, -1, block)


def _four_bits(x: Floats) -> Blocks:
    low, high = np.minimum(x.min(-1), 0), np.maximum(x.max(-1), 0)
    codes, best = np.zeros(x.shape, np.uint8), np.full(low.shape, np.inf, np.float32)
    scales, zeros = np.ones(low.shape, np.float32), np.zeros(low.shape, np.uint8)
    for shrink in _SHRINKS:
        scale = np.maximum((high - low) * np.float32(shrink / 15), np.float32(1e-12))
        zero = np.clip(np.rint(-low * np.float32(shrink) / scale), 0, 15)
        code = np.clip(np.rint(x / scale[..., None]) + zero[..., None], 0, 15)
        error = np.square((code - zero[..., None]) * scale[..., None] - x).sum(-1)
        better = error < best
        codes[better] = code[better].astype(np.uint8)
        scales[better], zeros[better], best[better] = scale[better], zero[better].astype(np.uint8), error[better]
    return Blocks(codes, scales, zeros)


def _on_table(x: Floats, table: Floats) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    borders = (table[1:] + table[:-1]) / 2
    largest = np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)[..., 0]
    codes, best = np.zeros(x.shape, np.uint8), np.full(largest.shape, np.inf, np.float32)
    scales = np.zeros(largest.shape, np.float16)
    for anchor in (share * end for end in (table[0], table[-1]) for share in _ANCHORS):
        first = largest / anchor
        first[first == 0] = 1
        code = np.searchsorted(borders, x / first[..., None]).astype(np.uint8)
        values = table[code]
        scale = ((x * values).sum(-1) / np.square(values).sum(-1)).astype(np.float16)
        error = np.square(values * scale.astype(np.float32)[..., None] - x).sum(-1)
        better = error < best
        codes[better], scales[better], best[better] = code[better], scale[better], error[better]
    return codes, scales
