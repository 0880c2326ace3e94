"""Chooses the weights that are held at 6 bits: where 4-bit codes cost the most KL per byte."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from edgesdk.cloud.config import QuantizeConfig
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.quantize.block import quantize_weight
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.sizes import kept_shapes
from edgesdk.cloud.stored import save_codes
from edgesdk.cloud.tune.gradients import divergence_gradients
from edgesdk.cloud.tune.student import Student
from edgesdk.cloud.workdir import WorkDirectory, write_json

__all__ = ["WIDE_BITS", "choose", "estimated_gains", "widen"]

WIDE_BITS = 6

_BATCH_TOKENS = 2048

Progress = Callable[[int, int], None]
Key = tuple[int, str]


def widen(
    ordered: SortedModel,
    student: Student,
    windows: Tensor,
    share: float,
    settings: QuantizeConfig,
    work: WorkDirectory,
    progress: Progress | None = None,
) -> dict[Key, int]:
    """Quantizes the chosen weights once more, at 6 bits, into `work`; returns the bits of those weights.

    windows: (n, tokens) calibration text; share: of all elements that may be held at 6 bits. Nothing is done twice.
    """
    config = student.source.config
    path = work.path("wide.json")
    if not path.exists():
        gains = estimated_gains(ordered.decoder, student.decoder(), windows, progress)
        by_block: dict[int, list[str]] = defaultdict(list)
        for index, role in choose(gains, _elements(student.source), share):
            by_block[index].append(role)
        for index, roles in by_block.items():
            weights, moments = ordered.decoder.block_weights(index), ordered.moments(index)
            block = config.blocks[index]
            chosen = [weight for weight in block.weights if weight.role in roles]
            made = {w.role: quantize_weight(block, w, weights, moments, settings, WIDE_BITS) for w in chosen}
            save_codes(work, index, made)
        write_json(path, sorted((index, role) for index, roles in by_block.items() for role in roles))
    return dict.fromkeys(map(tuple, json.loads(path.read_text("utf-8"))), WIDE_BITS)


def estimated_gains(
    source: Decoder, student: Decoder, windows: Tensor, progress: Progress | None = None
) -> dict[Key, float]:
    """How much KL (nats per token) each weight's quantization costs, by block index and role.

    KL is nearly quadratic in the weights' errors, so one weight's part in it is half of gradient times error.
    source: the sorted float model, whose weights are named and shaped like those of the student.
    """
    at_once = max(1, _BATCH_TOKENS // windows.shape[1])
    states = source.final_states(windows, at_once)
    gains: dict[Key, float] = defaultdict(float)
    batches = list(zip(windows.split(at_once), states.split(at_once), strict=True))
    for number, (tokens, own) in enumerate(batches, 1):
        weight_of_batch = 0.5 * len(tokens) / len(windows)

        def see(index: int, gradients: Mapping[str, Tensor], factor: float = weight_of_batch) -> None:
            exact, held = source.block_weights(index), student.block_weights(index)
            for weight in student.config.blocks[index].weights:
                error = held[weight.role] - exact[weight.role]
                gains[index, weight.role] += factor * float((gradients[weight.role] * error).sum())

        divergence_gradients(source, own, student, tokens, see)
        if progress:
            progress(number, len(batches))
    return dict(gains)


def choose(gains: Mapping[Key, float], elements: Mapping[Key, int], share: float) -> Sequence[Key]:
    """The weights with the largest gain per element that together hold at most `share` of all elements."""
    room = share * sum(elements.values())
    chosen = []
    for key in sorted(gains, key=lambda k: (-gains[k] / elements[k], k)):
        if gains[key] > 0 and elements[key] <= room:
            chosen.append(key)
            room -= elements[key]
    return chosen


def _elements(source: Decoder) -> dict[Key, int]:
    config = source.config
    shapes = [kept_shapes(block, [axis.size for axis in block.axes], config.d_model) for block in config.blocks]
    return {(i, role): rows * columns for i, block in enumerate(shapes) for role, (rows, columns) in block.items()}
