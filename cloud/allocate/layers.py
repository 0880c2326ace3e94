"""From one pruning rate per layer to an allocation of exactly so many bytes: shared by the baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgesdk.cloud.families.blocks import Attention, Block, ModelConfig
from edgesdk.cloud.pack import Allocation, block_bytes

__all__ = ["full_allocation", "layer_ladder", "layer_names", "target_rates"]


_MOST = 1e6  # a method's parameter far beyond which its rates do not grow any more


def full_allocation(config: ModelConfig) -> Allocation:
    """Every axis at full size."""
    return tuple(tuple(axis.size for axis in block.axes) for block in config.blocks)


def layer_names(config: ModelConfig) -> list[str]:
    """Names of the layers (`blk.3`), in order; a layer's attention and MLP blocks share one."""
    return list(dict.fromkeys(block.name.rpartition(".")[0] for block in config.blocks))


def target_rates(max_rate: float, step: float) -> list[float]:
    """Rates of the ladder, from the highest down to 0."""
    count = max(1, round(max_rate / step))
    return [max_rate * (count - i) / count for i in range(count + 1)]


def layer_ladder(
    config: ModelConfig,
    rates: Sequence[float],
    layer_rates: Callable[[float], Sequence[float]],
    group: int,
) -> list[Allocation]:
    """Allocations for `rates` (descending, the last is 0) in which layer l gives up about layer_rates(rate)[l].

    Each layer rounds its head axes to whole steps and lets its MLP make up for it. The bytes of each level are the
    most that its rate allows, to within one step of one MLP.
    """
    full = full_allocation(config)
    total = block_bytes(config, full, group)
    ladder: list[Allocation] = [full]
    for rate in sorted(rates)[1:]:
        limit = (1 - rate) * total
        low, high = 0.0, 1.0
        while high < _MOST and block_bytes(config, _allocate(config, layer_rates(high), group), group) > limit:
            high *= 2
        for _ in range(30):
            middle = (low + high) / 2
            allocation = _allocate(config, layer_rates(middle), group)
            low, high = (low, middle) if block_bytes(config, allocation, group) <= limit else (middle, high)
        allocation = _fill(config, _allocate(config, layer_rates(high), group), limit, group)
        ladder.append(_within(allocation, ladder[-1]))
    return ladder[::-1]


def _allocate(config: ModelConfig, rates: Sequence[float], group: int) -> Allocation:
    rate_of = dict(zip(layer_names(config), rates, strict=True))
    return tuple(_cut(block, rate_of[block.name.rpartition(".")[0]], config, group) for block in config.blocks)


def _cut(block: Block, rate: float, config: ModelConfig, group: int) -> tuple[int, ...]:
    if isinstance(block, Attention):
        return tuple(max(1, round(a.size * (1 - rate) / a.quantum)) * a.quantum for a in block.axes)
    (axis,) = block.axes
    layer = block.name.rpartition(".")[0]
    attention = [b for b in config.blocks if isinstance(b, Attention) and b.name.rpartition(".")[0] == layer]
    excess = 0.0  # bytes that rounding the head axes kept too many
    for other in attention:
        whole = _bytes(other, tuple(a.size for a in other.axes), config, group)
        excess += _bytes(other, _cut(other, rate, config, group), config, group) - whole * (1 - rate)
    step = _bytes(block, (axis.quantum,), config, group)
    width = round((_bytes(block, (axis.size,), config, group) * (1 - rate) - excess) / step) * axis.quantum
    return (min(axis.size, max(axis.quantum, width)),)


def _bytes(block: Block, kept: tuple[int, ...], config: ModelConfig, group: int) -> int:
    return block_bytes(replace(config, blocks=(block,)), (kept,), group)


def _fill(config: ModelConfig, allocation: Allocation, limit: float, group: int) -> Allocation:
    """Gives MLP steps back, one layer after the other, while the bytes stay within the limit."""
    current = list(allocation)
    used = block_bytes(config, allocation, group)
    for index, block in enumerate(config.blocks):
        if isinstance(block, Attention):
            continue
        (axis,) = block.axes
        step = _bytes(block, (axis.quantum,), config, group)
        if current[index][0] + axis.quantum <= axis.size and used + step <= limit:
            current[index] = (current[index][0] + axis.quantum,)
            used += step
    return tuple(current)


def _within(allocation: Allocation, larger: Allocation) -> Allocation:
    return tuple(
        tuple(min(a, b) for a, b in zip(kept, above, strict=True))
        for kept, above in zip(allocation, larger, strict=True)
    )
