"""What lower bits cost: KL (nats per token) per weight and number of bits, from one pass of gradients.

KL is nearly quadratic in the weights' errors. One pass gives each weight's part at one number of bits (half of gradient
times error); at others it grows with the error of what the weight computes, tr(E M E^T), which quantization measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from edgesdk.cloud.allocate.inputs import BitLosses
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.quantize.block import multiplied
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.sizes import LevelPlan, ModelPanel, model_panels, model_weights
from edgesdk.cloud.stored import StoredWeights
from edgesdk.cloud.tune import Student, quantization_costs

__all__ = ["BLOCK_BITS", "MODEL_BITS", "PROBE_BITS", "bit_losses", "lower_bits", "lower_plans"]

BLOCK_BITS = (6, 4, 3, 2)
MODEL_BITS = (8, 6, 4, 3)
PROBE_BITS = 3
"""At which gradients are taken: errors are large enough to stand out and small enough to add up."""

_FLOOR = 0.2  # of the usual cost per element of its role: no weight is taken for free because of noise

Progress = Callable[[int, int], None]
_Losses = dict[tuple[int | None, str], dict[int, float]]


def lower_bits(bits: int, choices: Sequence[int]) -> list[int]:
    """`bits` and all choices below it, descending."""
    return [bits, *(b for b in choices if b < bits)]


def lower_plans(full: LevelPlan, min_bits: int) -> list[LevelPlan]:
    """Plans that together use every weight in all bits below those of the full level; blocks down to `min_bits`."""
    plans = []
    for position in range(1, len(BLOCK_BITS)):
        most = max(BLOCK_BITS[position], min_bits)
        bits = tuple(tuple(min(own, most) for own in block) for block in full.bits)
        model_bits = tuple(min(own, MODEL_BITS[min(position, len(MODEL_BITS) - 1)]) for own in full.model_bits)
        plans.append(replace(full, bits=bits, model_bits=model_bits))
    return plans


def bit_losses(
    ordered: SortedModel,
    weights: StoredWeights,
    full: LevelPlan,
    windows: Tensor,
    min_bits: int,
    progress: Progress | None = None,
) -> BitLosses:
    """Losses against the full level; `weights` holds what `lower_plans` lists.

    windows: (n, tokens) calibration text; min_bits: the fewest that a block weight may have, at most PROBE_BITS
    """
    config = ordered.decoder.config
    probe = LevelPlan.of(config, full.kept, PROBE_BITS, full.model_bits[0])
    student = Student.start(ordered, weights, [probe])
    costs = quantization_costs(ordered.decoder, student.decoder(), windows, progress)
    found: dict[tuple[int | None, str], dict[int, float]] = {}
    floors = _floors(costs, {key: _elements(student, *key) for key in costs})
    for (index, role), own in full.weight_bits(config).items():
        choices = [b for b in lower_bits(own, BLOCK_BITS) if b >= min_bits]
        error = {b: weights.weight(index, role, b).error or 0.0 for b in choices}
        unit = max(costs[index, role], floors[index, role]) / _probe_error(weights, index, role)
        found[index, role] = {b: unit * max(e - error[own], 0.0) for b, e in error.items()}
    return found | _model_losses(ordered, weights, full, windows)


def _probe_error(weights: StoredWeights, index: int, role: str) -> float:
    return max(weights.weight(index, role, PROBE_BITS).error or 0.0, 1e-30)


def _elements(student: Student, index: int, role: str) -> int:
    return student.part(index, role, PROBE_BITS).values.numel()


def _floors(
    costs: Mapping[tuple[int, str], float], elements: Mapping[tuple[int, str], int]
) -> dict[tuple[int, str], float]:
    by_role: dict[str, list[float]] = defaultdict(list)
    for (index, role), cost in costs.items():
        by_role[role].append(cost / elements[index, role])
    medians = {role: float(torch.tensor(values).median()) for role, values in by_role.items()}
    return {key: _FLOOR * max(medians[key[1]], 1e-12) * elements[key] for key in costs}


@torch.inference_mode()
def _model_losses(ordered: SortedModel, weights: StoredWeights, full: LevelPlan, windows: Tensor) -> _Losses:
    """KL with one panel of embedding or head at fewer bits, all blocks in float, less what full bits cost."""
    source = ordered.decoder
    config = source.config
    panels = model_panels(config)
    tables = {name: weights.codes.zeros((config.vocab_size, config.d_model)) for name in model_weights(config)}
    changed = Decoder(config, tables["embed"], source.final_norm, list(tables.values())[-1], source.block_weights)

    def put(panel: ModelPanel, bits: int) -> None:
        whole, rows = weights.weight(None, panel.weight, bits), slice(panel.begin, panel.end)
        stored = replace(whole, codes=whole.codes[rows], scales=whole.scales[rows])
        values, scales = torch.from_numpy(stored.values()), torch.from_numpy(stored.scales).float()
        tables[panel.weight][rows] = multiplied(values, scales, stored.group)

    def divergence(states: Iterable[Tensor]) -> float:
        total = 0.0
        for own, new in zip(wanted, states, strict=True):
            target = source.logits(own).log_softmax(-1)
            total += float(F.kl_div(changed.logits(new).log_softmax(-1), target, reduction="sum", log_target=True))
        return total / windows.numel()

    for panel, own in zip(panels, full.model_bits, strict=True):
        put(panel, own)
    wanted, before = source.final_states(windows, 1), changed.final_states(windows, 1)
    base = divergence(before)
    found: _Losses = {}
    for panel, own in zip(panels, full.model_bits, strict=True):
        losses = {own: 0.0}
        for bits in lower_bits(own, MODEL_BITS)[1:]:
            put(panel, bits)
            is_read = panel.weight == "embed"  # a head alone leaves all states as they were
            losses[bits] = max(divergence(changed.final_states(windows, 1) if is_read else before) - base, 0.0)
        put(panel, own)
        found[None, panel.name] = losses
    return _raised(found)


def _raised(found: _Losses) -> _Losses:
    """The losses of panels, each at least a share of the mean: few texts show what the rows of rare tokens cost."""
    by_bits: dict[tuple[str, int], list[float]] = defaultdict(list)
    for (_, name), losses in found.items():
        for bits, loss in losses.items():
            by_bits[name.partition(".")[0], bits].append(loss)
    least = {key: _FLOOR * sum(losses) / len(losses) for key, losses in by_bits.items()}
    return {
        key: {bits: max(loss, least[key[1].partition(".")[0], bits]) for bits, loss in losses.items()}
        for key, losses in found.items()
    }
