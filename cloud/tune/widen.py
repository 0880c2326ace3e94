"""Chooses the weights that are held at 6 bits: where 4-bit codes cost the most KL per byte."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.sizes import kept_shapes
from edgesdk.cloud.tune.gradients import divergence_gradients
from edgesdk.cloud.tune.student import Student
from edgesdk.cloud.workdir import WorkDirectory, write_json

__all__ = ["WIDE_BITS", "Key", "choose", "quantization_costs", "widen"]

WIDE_BITS = 6

_BATCH_TOKENS = 2048
_STREAM_BYTES = 1 << 29  # of a batch: the residual stream before every block

Progress = Callable[[int, int], None]
Key = tuple[int, str]


def widen(
    ordered: SortedModel,
    student: Student,
    windows: Tensor,
    share: float,
    work: WorkDirectory,
    progress: Progress | None = None,
) -> list[Key]:
    """The weights that are to be held at 6 bits; the choice is kept in `work`.

    windows: (n, tokens) calibration text; share: of all elements that may be held at 6 bits.
    """
    path = work.path("wide.json")
    if not path.exists():
        costs = quantization_costs(ordered.decoder, student.decoder(), windows, progress)
        write_json(path, sorted(choose(costs, _elements(student.source), share)))
    return [(index, role) for index, role in json.loads(path.read_text("utf-8"))]


def quantization_costs(
    source: Decoder, student: Decoder, windows: Tensor, progress: Progress | None = None
) -> dict[Key, float]:
    """How much KL (nats per token) each weight's quantization costs, by block index and role.

    KL is nearly quadratic in the weights' errors, so one weight's part in it is half of gradient times error.
    source: the sorted float model, whose weights are named and shaped like those of the student.
    """
    token_bytes = 4 * source.config.d_model * len(source.config.blocks)
    at_once = max(1, min(_BATCH_TOKENS, _STREAM_BYTES // token_bytes) // windows.shape[1])
    states = source.final_states(windows, at_once)
    costs: dict[Key, float] = defaultdict(float)
    batches = list(zip(windows.split(at_once), states.split(at_once), strict=True))
    for number, (tokens, own) in enumerate(batches, 1):
        weight_of_batch = 0.5 * len(tokens) / len(windows)

        def see(index: int, gradients: Mapping[str, Tensor], factor: float = weight_of_batch) -> None:
            exact, held = source.block_weights(index), student.block_weights(index)
            for weight in student.config.blocks[index].weights:
                error = held[weight.role] - exact[weight.role]
                costs[index, weight.role] += factor * float((gradients[weight.role] * error).sum())

        divergence_gradients(source, own, student, tokens, see)
        if progress:
            progress(number, len(batches))
    return dict(costs)


def choose(costs: Mapping[Key, float], elements: Mapping[Key, int], share: float) -> Sequence[Key]:
    """The weights with the largest cost per element that together hold at most `share` of all elements."""
    room = share * sum(elements.values())
    chosen = []
    for key in sorted(costs, key=lambda k: (-costs[k] / elements[k], k)):
        if costs[key] > 0 and elements[key] <= room:
            chosen.append(key)
            room -= elements[key]
    return chosen


def _elements(source: Decoder) -> dict[Key, int]:
    config = source.config
    shapes = [kept_shapes(block, [axis.size for axis in block.axes], config.d_model) for block in config.blocks]
    return {(i, role): rows * columns for i, block in enumerate(shapes) for role, (rows, columns) in block.items()}
