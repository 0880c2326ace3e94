"""The order of each block's axes: ranked once, one task a block, and kept beside the block's moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from edgesdk.cloud.calibrate import Calibration, moments_name
from edgesdk.cloud.families.blocks import Block, ModelConfig
from edgesdk.cloud.memory import block_bytes
from edgesdk.cloud.moments import Moments
from edgesdk.cloud.rank import METHODS
from edgesdk.cloud.reference import BlockWeights
from edgesdk.cloud.sizes import kept_shapes
from edgesdk.cloud.sort import AttentionOrder, MlpOrder, Order, SsmOrder
from edgesdk.cloud.tasks import Executor, ModelFiles, StoredFile, one_thread
from edgesdk.cloud.workdir import as_tensor

__all__ = ["block_order", "rank_blocks", "read_order", "stored_order"]

_SMALL_BYTES = 1 << 30  # of weights: ranking less takes seconds


def rank_blocks(
    files: ModelFiles,
    config: ModelConfig,
    calibration: Calibration,
    method: str,
    executor: Executor,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Ranks those blocks whose order is not kept yet. method: a name in rank.METHODS."""
    n_blocks = len(config.blocks)
    missing = [i for i in range(n_blocks) if not calibration.work.has(stored_order(calibration, i, method).name)]
    if not missing:
        return
    jobs = [(files, method, i, StoredFile(calibration.work, moments_name(i))) for i in missing]
    sizes = {i: block_bytes(config, i) for i in missing}
    n_bytes = max(2 * sizes[i] + 4 * _moment_bytes(config, i) for i in missing)
    small = sum(sizes.values()) < _SMALL_BYTES
    for done, (position, found) in enumerate(executor.run(_rank, jobs, n_bytes=n_bytes, small=small), 1):
        name = stored_order(calibration, missing[position], method).name
        calibration.work.save(name, {key: as_tensor(array) for key, array in found.items()})
        if progress:
            progress(done, len(missing))


def block_order(
    block: Block, weights: Callable[[int], BlockWeights], calibration: Calibration, index: int, method: str
) -> Order:
    """The order of one block, which is ranked now if it is not kept. weights: of a block of the source, by index."""
    file = stored_order(calibration, index, method)
    if not calibration.work.has(file.name):
        with one_thread():
            order = METHODS[method](block, weights(index), calibration.moments(index))
        calibration.work.save(file.name, _tensors(order))
    return read_order(file.load())


def stored_order(calibration: Calibration, index: int, method: str) -> StoredFile:
    """Where the order of a block lies."""
    return StoredFile(calibration.work, f"order-{method}-{index:03d}.safetensors")


def read_order(tensors: dict[str, Tensor]) -> Order:
    """The order that a file holds."""
    kinds: tuple[type[MlpOrder] | type[AttentionOrder] | type[SsmOrder], ...] = (MlpOrder, AttentionOrder, SsmOrder)
    return next(kind(**tensors) for kind in kinds if {f.name for f in fields(kind)} == set(tensors))


@torch.inference_mode()
def _rank(files: ModelFiles, method: str, index: int, moments: StoredFile) -> dict[str, NDArray[Any]]:
    """The task."""
    block, weights = files.block(index)
    order = METHODS[method](block, weights, Moments(moments.load(), 0.0))
    return {name: tensor.contiguous().numpy() for name, tensor in _tensors(order).items()}


def _tensors(order: Order) -> dict[str, Tensor]:
    return {f.name: getattr(order, f.name) for f in fields(order)}


def _moment_bytes(config: ModelConfig, index: int) -> int:
    """Of the largest moment of a block: what one of its weights reads."""
    block = config.blocks[index]
    shapes = kept_shapes(block, [axis.size for axis in block.axes], config.d_model)
    return 4 * max(columns for _, columns in shapes.values()) ** 2
