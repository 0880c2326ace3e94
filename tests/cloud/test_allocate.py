"""The walk from the full level down: cheapest bytes first, nested, within the growth that is allowed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tiny_model import tiny_config

from edgesdk.cloud.allocate import AllocateInputs, measured
from edgesdk.cloud.allocate.bits import lower_plans
from edgesdk.cloud.allocate.descent import Descent
from edgesdk.cloud.config import AllocateConfig
from edgesdk.cloud.sizes import LevelPlan, PackedSizes, full_allocation, model_panels

CONFIG = tiny_config()
FULL = LevelPlan.of(CONFIG, full_allocation(CONFIG))
SIZES = PackedSizes(CONFIG)
BLOCK_BYTES = SIZES.level(FULL.kept, FULL.bits)


def bit_losses(scale: float) -> dict[tuple[int | None, str], dict[int, float]]:
    """Each bit that is given up costs four times the one before; later blocks cost more."""
    found: dict[tuple[int | None, str], dict[int, float]] = {
        (None, panel.name): {8: 0.0, 6: 1e-4 / (1 + panel.index), 4: 1e-2 / (1 + panel.index)}
        for panel in model_panels(CONFIG)
    }
    for index, role in FULL.weight_bits(CONFIG):
        found[index, role] = {4: 0.0, 3: scale * (index + 1), 2: scale * 5 * (index + 1)}
    return found


def size_losses(scale: float) -> list[dict[tuple[int, ...], float]]:
    """The loss of a block grows with the square of what is cut."""
    found: list[dict[tuple[int, ...], float]] = []
    for block in CONFIG.blocks:
        own: dict[tuple[int, ...], float] = {}
        whole = tuple(axis.size for axis in block.axes)
        for step in range(8):
            kept = tuple(max(0, a.size - step * a.quantum) for a in block.axes)
            if all(kept):
                own[kept] = scale * sum((a.size - k) / a.size for a, k in zip(block.axes, kept, strict=True)) ** 2
        assert whole in own
        found.append(own | {(0,) * len(whole): scale * 4})
    return found


def inputs_of(bits: Mapping[tuple[int | None, str], Mapping[int, float]], settings: AllocateConfig) -> AllocateInputs:
    return AllocateInputs(
        SIZES,
        settings,
        None,  # type: ignore[arg-type]  # the walk runs no model
        lambda index: {},
        (),
        torch.zeros(0),
        FULL,
        bits,
        None,  # type: ignore[arg-type]  # and measures nothing
    )


def descent(
    bits: Mapping[tuple[int | None, str], Mapping[int, float]],
    sizes: list[Any],
    growth: float = 10.0,
    price: float = 0.0,
) -> Descent:
    return Descent(inputs_of(bits, AllocateConfig(max_file_growth=growth)), sizes, price)


def walk(found: Descent, every: int = 3) -> list[LevelPlan]:
    """Levels, largest first: every third step becomes one."""
    plans = [FULL]
    steps = 0
    while found.step():
        steps += 1
        if steps % every == 0:
            plans.append(found.plan)
            found.keep_level()
    return plans


def growth(plans: list[LevelPlan]) -> int:
    """Bytes of all versions that the full level does not use, counted anew."""
    total = 0
    for above, plan in itertools.pairwise(plans):
        for index, (bits, larger) in enumerate(zip(plan.bits, above.bits, strict=True)):
            sizes = SIZES.weights(index, plan.kept[index], bits)
            total += sum(n for n, b, a in zip(sizes, bits, larger, strict=True) if a != b)
        panels = zip(model_panels(CONFIG), plan.model_bits, above.model_bits, strict=True)
        total += sum(SIZES.model_panel(panel, b) for panel, b, a in panels if a != b)
    return total


def test_levels_nest_and_lose_bytes() -> None:
    plans = walk(descent(bit_losses(1e-3), size_losses(0.05)))
    assert len(plans) > 5
    for above, below in itertools.pairwise(plans):
        bytes_of = [SIZES.level(p.kept, p.bits) + SIZES.model(p.model_bits) for p in (above, below)]
        assert bytes_of[1] < bytes_of[0]
        for kept, larger in zip(below.kept, above.kept, strict=True):
            assert all(a <= b for a, b in zip(kept, larger, strict=True))
        for own, larger in zip(below.bits, above.bits, strict=True):
            assert all(a <= b for a, b in zip(own, larger, strict=True))
    assert set(plans[-1].model_bits) == {4}


@pytest.mark.parametrize("limit", [0.0, 0.15, 0.4])
def test_versions_of_weights_stay_within_the_growth_that_is_allowed(limit: float) -> None:
    plans = walk(descent(bit_losses(1e-4), size_losses(0.05), limit))
    found = growth(plans) / (BLOCK_BYTES + SIZES.model(FULL.model_bits))
    assert found <= limit
    if limit:
        assert found > limit / 2  # lower bits are by far the cheapest here
    else:
        assert {plan.bits for plan in plans} == {FULL.bits}


def test_the_cheapest_axis_goes_first() -> None:
    bits_first = descent(bit_losses(1e-6), size_losses(1.0))
    assert bits_first.step()
    assert bits_first.plan.kept == FULL.kept
    sizes_first = descent(bit_losses(1.0), size_losses(1e-6))
    assert sizes_first.step()
    assert sizes_first.plan.bits == FULL.bits


def test_where_the_embedding_gives_up_much_there_are_more_levels() -> None:
    """Its bits are in no rate: without them two levels could be the whole table apart."""
    cheap = {
        key: {b: loss * 1e-4 if key[0] is None else loss for b, loss in losses.items()}
        for key, losses in bit_losses(1.0).items()
    }
    settings = AllocateConfig(max_file_growth=10.0, max_rate=0.5, step=0.05)
    found = measured._walk(inputs_of(cheap, settings), size_losses(1.0), 0.0)
    sizes = [SIZES.level(plan.kept, plan.bits) for plan in dict.fromkeys(found.ladder)]
    assert all(below < above for above, below in itertools.pairwise(sizes))  # rates differ
    blocks = descent({key: losses for key, losses in cheap.items() if key[0] is not None}, size_losses(1.0))
    assert blocks.step()
    panel = max(SIZES.model_panel(panel, 8) for panel in model_panels(CONFIG))
    limit = settings.step * found.n_bytes[0]
    assert found.n_bytes[0] - found.n_bytes[1] <= limit + panel + (found.n_bytes[0] - blocks.mapped_bytes)
    assert limit < SIZES.model(FULL.model_bits) / 2  # what the table gives up is more


def test_a_price_of_file_bytes_turns_the_walk_from_bits_to_sizes() -> None:
    cheap_bits = bit_losses(1e-6), size_losses(1e-3)
    free, dear = descent(*cheap_bits), descent(*cheap_bits, price=1.0)
    assert free.step()
    assert dear.step()
    assert free.plan.bits != FULL.bits
    assert dear.plan.bits == FULL.bits
    assert dear.plan.kept != FULL.kept


def test_losses_and_bytes_are_those_of_the_plan() -> None:
    found = descent(bit_losses(1e-3), size_losses(0.05))
    assert (found.loss, found.mapped_bytes) == (0.0, BLOCK_BYTES + SIZES.model(FULL.model_bits))
    steps = 0
    while found.step() and steps < 30:
        steps += 1
    assert found.mapped_bytes == SIZES.level(found.plan.kept, found.plan.bits) + SIZES.model(found.plan.model_bits)
    own = zip(model_panels(CONFIG), found.plan.model_bits, strict=True)
    assert found.loss > sum(bit_losses(1e-3)[None, panel.name][bits] for panel, bits in own)


def test_rows_that_cost_least_lose_their_bits_first() -> None:
    found = descent(bit_losses(1.0), size_losses(1.0))
    assert found.step()
    panels = model_panels(CONFIG)
    slopes = [bit_losses(1.0)[None, panel.name][6] / (panel.end - panel.begin) for panel in panels]
    cheapest = min(panels, key=lambda panel: slopes[panel.index])
    assert found.plan.model_bits == tuple(6 if panel == cheapest else 8 for panel in panels)


def test_the_walk_that_loses_least_at_the_same_bytes_is_taken() -> None:
    walks = [
        measured._Walk([FULL], [100, 80, 60], [0.0, 0.1, 0.5]),
        measured._Walk([FULL], [100, 75, 50], [0.0, 0.2, 0.3]),  # worse at 80, by far better at 60
        measured._Walk([FULL], [100, 81, 62], [0.0, 0.3, 0.9]),
    ]
    assert measured._best(walks) is walks[1]
    assert measured._best(walks[::2]) is walks[0]


def test_without_bits_only_sizes_change_and_without_sizes_only_bits() -> None:
    assert {plan.bits for plan in walk(descent({}, size_losses(1.0)))} == {FULL.bits}
    plans = walk(descent(bit_losses(1.0), [{kept: 0.0} for kept in FULL.kept]), every=1)
    assert {plan.kept for plan in plans} == {FULL.kept}
    assert plans[-1].bits == tuple((2,) * len(block) for block in FULL.bits)


def test_lower_plans_use_every_weight_in_all_bits_below() -> None:
    full = LevelPlan.of(CONFIG, full_allocation(CONFIG), bits=6)
    used = {bits for plan in lower_plans(full, 2) for block in plan.bits for bits in block}
    assert used == {4, 3, 2}
    assert {bits for plan in lower_plans(full, 3) for block in plan.bits for bits in block} == {4, 3}
    assert {bits for plan in lower_plans(full, 2) for bits in plan.model_bits} == {6, 4, 3}
