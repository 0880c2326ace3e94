"""Allocates by measured loss per byte: what costs the least KL for the bytes it saves is given up first.

Second-order estimates give each axis the shape of its loss curve, a few measured KL points give it its height; bits.py
gives what lower bits cost; and a greedy walk (descent.py) gives one total order over both.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from edgesdk.cloud.allocate.curves import loss_shape
from edgesdk.cloud.allocate.descent import Descent
from edgesdk.cloud.allocate.inputs import AllocateInputs
from edgesdk.cloud.allocate.layers import target_rates
from edgesdk.cloud.allocate.losses import Candidate, LossMeter
from edgesdk.cloud.families.blocks import Block
from edgesdk.cloud.sizes import LevelPlan

__all__ = ["allocate"]

_PRICES = (0.03, 0.1)  # of a byte of the file, in mean losses of a mapped byte
_LEAST = 1e-3  # nats per token
_TRUST = np.log(3.0)  # how far a slighter cut may stray from the second-order curve through the deepest one


def allocate(inputs: AllocateInputs) -> list[LevelPlan]:
    """The ladder, smallest level first: of several prices of file bytes the one with the least losses."""
    curves = _curves(inputs)
    free = _walk(inputs, curves, 0.0)
    steepest = free.losses[-1] / max(1, free.n_bytes[0] - free.n_bytes[-1])
    walks = [free, *(_walk(inputs, curves, share * steepest) for share in _PRICES if inputs.bit_losses)]
    return _best(walks).ladder[::-1]


@dataclass(frozen=True)
class _Walk:
    """A ladder from the full level down, with the mapped bytes of each level's weights and its estimated loss."""

    ladder: list[LevelPlan]
    n_bytes: list[int]
    losses: list[float]


def _walk(inputs: AllocateInputs, curves: Sequence[Mapping[tuple[int, ...], float]], price: float) -> _Walk:
    sizes, settings = inputs.sizes, inputs.settings
    rates = target_rates(settings.max_rate, settings.step)[::-1]  # ascending from 0
    total = inputs.level_bytes(inputs.full.kept)
    descent = Descent(inputs, curves, price)
    walk = _Walk([inputs.full], [descent.mapped_bytes], [descent.loss])

    def keep_level() -> None:
        walk.ladder.append(descent.plan)
        walk.n_bytes.append(descent.mapped_bytes)
        walk.losses.append(descent.loss)
        descent.keep_level()

    kept_bytes = total  # of blocks, at the last level
    for rate in rates[1:]:
        while (block_bytes := sizes.level(descent.plan.kept, descent.plan.bits)) > (1 - rate) * total:
            # What embedding and head give up is in no rate: where they give up much, a level more, of another rate.
            is_far = walk.n_bytes[-1] - descent.mapped_bytes > settings.step * walk.n_bytes[0]
            if is_far and block_bytes < kept_bytes:
                keep_level()
                kept_bytes, is_far = block_bytes, False
            if not descent.step(only_blocks=is_far):
                return walk
        keep_level()
        kept_bytes = block_bytes
    return walk


def _best(walks: Sequence[_Walk]) -> _Walk:
    """The least mean logarithm of the loss over sizes that all of them have."""
    smallest = max(walk.n_bytes[-1] for walk in walks)
    sizes = [n for n in walks[0].n_bytes[1:] if n >= smallest]

    def mean(walk: _Walk) -> float:
        logs = np.log(np.maximum(walk.losses[::-1], _LEAST))
        return float(np.mean(np.interp(sizes, walk.n_bytes[::-1], logs)))

    return min(walks, key=mean) if sizes else walks[0]


def _curves(inputs: AllocateInputs) -> list[dict[tuple[int, ...], float]]:
    """For each block the loss (KL) of every combination of sizes that it may keep."""
    config, full = inputs.sizes.config, inputs.full.kept
    if inputs.settings.axes == "bits":
        return [{kept: 0.0} for kept in full]
    rows = inputs.work.remember("sizes.json", lambda: _measure(inputs))
    measured = {(index, tuple(kept)): loss for index, kept, loss in rows}
    found = []
    for index, block in enumerate(config.blocks):
        own = {kept: loss for (i, kept), loss in measured.items() if i == index}
        shapes = loss_shape(block, inputs.decoder.block_weights(index), inputs.moments(index))
        found.append(_block_losses(block, full[index], own, shapes))
    return found


def _measure(inputs: AllocateInputs) -> list[tuple[int, tuple[int, ...], float]]:
    """Index, kept sizes and loss (KL) of single cuts of blocks."""
    meter = LossMeter.start(inputs.decoder, inputs.moments, inputs.windows)
    full = inputs.full.kept
    candidates = [
        Candidate(index, kept)
        for index, block in enumerate(inputs.sizes.config.blocks)
        for kept in _measured_states(block, full[index], inputs.settings.fractions)
    ]
    base, losses = meter.measure(full, candidates, inputs.progress)
    return [(c.index, c.kept, max(loss - base, 1e-9)) for c, loss in zip(candidates, losses, strict=True)]


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


def _block_losses(
    block: Block,
    kept: tuple[int, ...],
    measured: Mapping[tuple[int, ...], float],
    shapes: Sequence[Tensor],
) -> dict[tuple[int, ...], float]:
    """Losses of all combinations of sizes: those of single axes add up; the block left out was measured."""
    losses = {kept: 0.0, (0,) * len(kept): measured[(0,) * len(kept)]}
    curves = [_curve(block, position, kept, measured, shape) for position, shape in enumerate(shapes)]
    for combination in itertools.product(*(curve.items() for curve in curves)):
        losses[tuple(size for size, _ in combination)] = sum(loss for _, loss in combination)
    return losses


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
