"""Allocates by measured loss per byte: what costs the least KL for the bytes it saves is given up first.

Second-order estimates give each axis the shape of its loss curve, a few measured KL points give it its height, and a
greedy walk along the convex hulls of all blocks gives one total order.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from edgesdk.cloud.allocate.curves import loss_shape
from edgesdk.cloud.allocate.inputs import AllocateInputs
from edgesdk.cloud.allocate.layers import target_rates
from edgesdk.cloud.allocate.losses import Candidate, LossMeter
from edgesdk.cloud.families.blocks import Block
from edgesdk.cloud.sizes import Allocation, PackedSizes, full_allocation

__all__ = ["allocate"]

_TRUST = np.log(3.0)  # how far a slighter cut may stray from the second-order curve through the deepest one


@dataclass(frozen=True)
class _Move:
    """One step of a block: from the state before it to `kept`."""

    index: int
    kept: tuple[int, ...]
    saved_bytes: int
    loss: float


def allocate(inputs: AllocateInputs) -> list[Allocation]:
    """The ladder, smallest level first."""
    sizes, settings = inputs.sizes, inputs.settings
    meter = LossMeter.start(inputs.decoder, inputs.moments, inputs.windows)
    rates = target_rates(settings.max_rate, settings.step)[::-1]  # ascending from 0
    state = full_allocation(sizes.config)
    total = sizes.level(state)
    ladder = [state]
    moves = _ordered_moves(inputs, meter, state)
    for rate in rates[1:]:
        limit = (1 - rate) * total
        while sizes.level(state) > limit:
            move = moves.pop(0)
            state = (*state[: move.index], move.kept, *state[move.index + 1 :])
        ladder.append(state)
    return ladder[::-1]


def _ordered_moves(inputs: AllocateInputs, meter: LossMeter, state: Allocation) -> list[_Move]:
    """All cuts from the full state, the cheapest per byte first."""
    config = inputs.sizes.config
    candidates = [
        Candidate(index, kept)
        for index, block in enumerate(config.blocks)
        for kept in _measured_states(block, state[index], inputs.settings.fractions)
    ]
    base, losses = meter.measure(state, candidates, inputs.progress)
    measured = {(c.index, c.kept): max(loss - base, 1e-9) for c, loss in zip(candidates, losses, strict=True)}
    moves: list[_Move] = []
    for index, block in enumerate(config.blocks):
        own = {kept: loss for (i, kept), loss in measured.items() if i == index}
        if own:
            shapes = loss_shape(block, meter.decoder.block_weights(index), inputs.moments(index))
            moves += _block_moves(inputs.sizes, index, state[index], own, shapes)
    return sorted(moves, key=lambda move: move.loss / move.saved_bytes)


def _measured_states(block: Block, kept: tuple[int, ...], fractions: Sequence[float]) -> list[tuple[int, ...]]:
    """Single-axis cuts of a block that are measured, and the block dropped."""
    if not any(kept):
        return []
    states: list[tuple[int, ...]] = []
    for position, axis in enumerate(block.axes):
        for fraction in fractions:
            size = max(1, round(kept[position] * fraction / axis.quantum)) * axis.quantum
            if size < kept[position]:
                states.append((*kept[:position], size, *kept[position + 1 :]))
    states.append((0,) * len(kept))
    return list(dict.fromkeys(states))


def _block_moves(
    sizes: PackedSizes,
    index: int,
    kept: tuple[int, ...],
    measured: Mapping[tuple[int, ...], float],
    shapes: Sequence[Tensor],
) -> list[_Move]:
    """The block's steps along the convex hull of (bytes saved, loss)."""
    block = sizes.config.blocks[index]
    losses = {kept: 0.0, (0,) * len(kept): measured[(0,) * len(kept)]}
    curves = [_curve(block, position, kept, measured, shape) for position, shape in enumerate(shapes)]
    for combination in itertools.product(*(curve.items() for curve in curves)):
        losses[tuple(size for size, _ in combination)] = sum(loss for _, loss in combination)
    path = _walk({s: (sizes.block(index, s), loss) for s, loss in losses.items()}, kept)
    return [
        _Move(index, state, bytes_before - n_bytes, loss - loss_before)
        for (_, (bytes_before, loss_before)), (state, (n_bytes, loss)) in itertools.pairwise(path)
    ]


def _curve(
    block: Block, position: int, kept: tuple[int, ...], measured: Mapping[tuple[int, ...], float], shape: Tensor
) -> dict[int, float]:
    """Loss of each smaller size of one axis: the second-order shape, scaled to go through the measured points.

    shape: (size + 1,) squared output error when only the first n elements are kept.
    """
    axis = block.axes[position]
    floor = float(shape[kept[position]])
    found = []
    for state, loss in measured.items():
        others = all(s == k for i, (s, k) in enumerate(zip(state, kept, strict=True)) if i != position)
        if others and 0 < state[position] < kept[position]:
            estimate = max(float(shape[state[position]]) - floor, 1e-30)
            found.append((np.log(estimate), np.log(loss / estimate)))
    found.sort()
    # The deepest cut is measured best: what a slight one costs drowns in noise, and must not look free by luck.
    points = [(x, float(np.clip(y, found[-1][1] - _TRUST, found[-1][1] + _TRUST))) for x, y in found]
    curve, worst = {kept[position]: 0.0}, 0.0
    if not points:
        return curve
    for size in range(kept[position] - axis.quantum, 0, -axis.quantum):
        estimate = max(float(shape[size]) - floor, 1e-30)
        ratio = np.interp(np.log(estimate), [p[0] for p in points], [p[1] for p in points])
        worst = max(worst, float(estimate * np.exp(ratio)))
        curve[size] = worst
    return curve


def _walk(
    states: Mapping[tuple[int, ...], tuple[int, float]], start: tuple[int, ...]
) -> list[tuple[tuple[int, ...], tuple[int, float]]]:
    """Lower convex hull of (bytes, loss) among states that nest: always the next state with the least loss per byte."""
    path = [(start, states[start])]
    while True:
        kept, (n_bytes, loss) = path[-1]
        below = {
            state: (loss_there - loss) / (n_bytes - bytes_there)
            for state, (bytes_there, loss_there) in states.items()
            if bytes_there < n_bytes and all(a <= b for a, b in zip(state, kept, strict=True))
        }
        if not below:
            return path
        best = min(below, key=lambda state: (below[state], state))
        path.append((best, states[best]))
