"""From one pruning rate per layer to an allocation of exactly so many bytes: shared by the baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgesdk.cloud.allocate.inputs import AllocateInputs
from edgesdk.cloud.families.blocks import Attention, Block, Mlp, ModelConfig
from edgesdk.cloud.sizes import Allocation, LevelPlan, full_allocation

__all__ = ["layer_ladder", "layer_names", "target_rates"]


_MOST = 1e6  # a method's parameter far beyond which its rates do not grow any more


def layer_names(config: ModelConfig) -> list[str]:
    """Names of the layers (`blk.3`), in order; a layer's attention and MLP blocks share one."""
    return list(dict.fromkeys(_layer(block) for block in config.blocks))


def target_rates(max_rate: float, step: float) -> list[float]:
    """Rates of the ladder, from the highest down to 0."""
    count = max(1, round(max_rate / step))
    return [max_rate * (count - i) / count for i in range(count + 1)]


def layer_ladder(
    inputs: AllocateInputs, rates: Sequence[float], layer_rates: Callable[[float], Sequence[float]]
) -> list[LevelPlan]:
    """Levels for `rates` (descending, the last is 0) in which layer l gives up about layer_rates(rate)[l]
    of its sizes, bits stay.

    Each layer rounds its head axes to whole steps and lets its MLP make up for it. The bytes of each level are the
    most that its rate allows, to within one step of one MLP or state-space mixer.
    """
    full = full_allocation(inputs.sizes.config)
    total = inputs.level_bytes(full)
    ladder: list[Allocation] = [full]
    for rate in sorted(rates)[1:]:
        limit = (1 - rate) * total
        low, high = 0.0, 1.0
        while high < _MOST and inputs.level_bytes(_allocate(inputs, layer_rates(high))) > limit:
            high *= 2
        for _ in range(30):
            middle = (low + high) / 2
            allocation = _allocate(inputs, layer_rates(middle))
            low, high = (low, middle) if inputs.level_bytes(allocation) <= limit else (middle, high)
        allocation = _fill(inputs, _allocate(inputs, layer_rates(high)), limit)
        ladder.append(_within(allocation, ladder[-1]))
    return [replace(inputs.full, kept=allocation) for allocation in ladder[::-1]]


def _allocate(inputs: AllocateInputs, rates: Sequence[float]) -> Allocation:
    rate_of = dict(zip(layer_names(inputs.sizes.config), rates, strict=True))
    blocks = inputs.sizes.config.blocks
    return tuple(_cut(inputs, index, rate_of[_layer(block)]) for index, block in enumerate(blocks))


def _cut(inputs: AllocateInputs, index: int, rate: float) -> tuple[int, ...]:
    block = inputs.sizes.config.blocks[index]
    if not isinstance(block, Mlp):
        return tuple(max(1, round(a.size * (1 - rate) / a.quantum)) * a.quantum for a in block.axes)
    (axis,) = block.axes
    excess = 0.0  # bytes that rounding the head axes kept too many
    for i, other in enumerate(inputs.sizes.config.blocks):
        if not isinstance(other, Mlp) and _layer(other) == _layer(block):
            whole = inputs.block_bytes(i, tuple(a.size for a in other.axes))
            excess += inputs.block_bytes(i, _cut(inputs, i, rate)) - whole * (1 - rate)
    step = inputs.block_bytes(index, (axis.quantum,))
    width = round((inputs.block_bytes(index, (axis.size,)) * (1 - rate) - excess) / step) * axis.quantum
    return (min(axis.size, max(axis.quantum, width)),)


def _layer(block: Block) -> str:
    return block.name.rpartition(".")[0]


def _fill(inputs: AllocateInputs, allocation: Allocation, limit: float) -> Allocation:
    """Gives steps of MLPs and of state-space heads back, one layer after the other, within the limit of bytes."""
    current = list(allocation)
    used = inputs.level_bytes(allocation)
    for index, block in enumerate(inputs.sizes.config.blocks):
        if isinstance(block, Attention):
            continue
        axis, kept = block.axes[-1], current[index]
        larger = (*kept[:-1], kept[-1] + axis.quantum)
        step = inputs.block_bytes(index, larger) - inputs.block_bytes(index, kept)
        if larger[-1] <= axis.size and used + step <= limit:
            current[index] = larger
            used += step
    return tuple(current)


def _within(allocation: Allocation, larger: Allocation) -> Allocation:
    return tuple(
        tuple(min(a, b) for a, b in zip(kept, above, strict=True))
        for kept, above in zip(allocation, larger, strict=True)
    )
