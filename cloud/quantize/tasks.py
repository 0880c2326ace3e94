"""Quantizes the weights of blocks: one task a weight, each on one thread, so that the bits are the same anywhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from math import prod

import torch

from edgesdk.cloud.calibrate import Calibration, moments_name
from edgesdk.cloud.config import BuildConfig, QuantizeConfig
from edgesdk.cloud.families.blocks import ModelConfig
from edgesdk.cloud.memory import block_bytes
from edgesdk.cloud.order import rank_blocks, read_order, stored_order
from edgesdk.cloud.pack import QuantizedWeight
from edgesdk.cloud.quantize.block import moment_of, quantize_weight
from edgesdk.cloud.sizes import kept_shapes
from edgesdk.cloud.sort import sort_moment, sort_weight
from edgesdk.cloud.stored import codes_name, save_codes
from edgesdk.cloud.tasks import Executor, ModelFiles, StoredFile
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["quantize_blocks"]

_SMALL_ELEMENTS = 1 << 23  # with fewer, starting processes takes longer than the work
_OVERHEAD_BYTES = 256 << 20  # of a process, beside its arrays


def quantize_blocks(
    files: ModelFiles,
    model: ModelConfig,
    config: BuildConfig,
    calibration: Calibration,
    work: WorkDirectory,
    wanted: Iterable[tuple[int, str, int]],
    executor: Executor,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Quantizes those of `wanted` (block index, role, bits) that the work directory does not hold yet.

    Results are written by this process as they arrive; executor: where the weights are quantized.
    """
    missing: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, role, bits in wanted:
        if not work.has(codes_name(index, role, bits)):
            missing[index, role].append(bits)
    if not missing:
        return
    method = config.rank.method
    rank_blocks(files, model, calibration, method, executor)
    jobs = [
        (
            files,
            config.quantize,
            index,
            role,
            tuple(bits),
            StoredFile(calibration.work, moments_name(index), moment_of(role)),
            stored_order(calibration, index, method),
        )
        for (index, role), bits in missing.items()
    ]
    shapes = {key: _shape(model, *key) for key in missing}
    n_bytes = max(_task_bytes(model, index, *shapes[index, role]) for index, role in missing)
    small = sum(len(bits) * prod(shapes[key]) for key, bits in missing.items()) < _SMALL_ELEMENTS
    names = list(missing)
    for done, (position, made) in enumerate(executor.run(_quantize, jobs, n_bytes=n_bytes, small=small), 1):
        for weight in made:
            save_codes(work, *names[position], weight)
        if progress:
            progress(done, len(jobs))


@torch.inference_mode()
def _quantize(
    files: ModelFiles,
    settings: QuantizeConfig,
    index: int,
    role: str,
    bits: tuple[int, ...],
    moments: StoredFile,
    order: StoredFile,
) -> list[QuantizedWeight]:
    """The task: one weight of a block in some numbers of bits."""
    block, weights = files.block(index)
    sorted_by = read_order(order.load())
    weight = sort_weight(block, role, weights[role], sorted_by)
    del weights
    name = moment_of(role)
    moment = sort_moment(block, name, moments.load()[name], sorted_by)
    return [quantize_weight(block, role, {role: weight}, {name: moment}, settings, b) for b in bits]


def _shape(model: ModelConfig, index: int, role: str) -> tuple[int, int]:
    block = model.blocks[index]
    return kept_shapes(block, [axis.size for axis in block.axes], model.d_model)[role]


def _task_bytes(model: ModelConfig, index: int, rows: int, columns: int) -> int:
    """What quantizing a weight takes at most: reading its block, or its moment's inverse and copies of both."""
    arrays = 4 * rows * columns * 5 + 4 * columns * columns * 5
    return max(arrays, 2 * block_bytes(model, index)) + _OVERHEAD_BYTES
