"""Quantizes weights in parallel: one task per block, each on one thread, so that the bits are the same anywhere."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import lru_cache, partial

import torch

from edgesdk.cloud.calibrate import Calibration
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import BuildConfig
from edgesdk.cloud.families import load_model
from edgesdk.cloud.families.blocks import ModelConfig
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.quantize.block import quantize_weight
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.sizes import kept_shapes
from edgesdk.cloud.stored import codes_name, save_codes
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["quantize_blocks"]

_ALONE_ELEMENTS = 1 << 23  # with fewer, starting processes takes longer than the work


def quantize_blocks(
    model: str,
    config: BuildConfig,
    calibration: Calibration,
    work: WorkDirectory,
    wanted: Iterable[tuple[int, str, int]],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Quantizes those of `wanted` (block index, role, bits) that the work directory does not hold yet.

    Blocks are done as many at once as there are cores, each in a process of its own; small models in this one.
    """
    missing: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for index, role, bits in wanted:
        if not work.has(codes_name(index, role, bits)):
            missing[index].append((role, bits))
    if not missing:
        return

    def report(done: int) -> None:
        if progress:
            progress(done, len(missing))

    source = _open(model)
    if _n_elements(source.config, missing) < _ALONE_ELEMENTS:
        with _one_thread():
            for done, (index, versions) in enumerate(missing.items(), 1):
                _quantize_some(source, config, calibration, work, index, versions)
                report(done)
        return
    n_workers = min(len(missing), len(os.sched_getaffinity(0)))
    context = multiprocessing.get_context("spawn")
    task = partial(_quantize_elsewhere, model, config, calibration, work)
    with ProcessPoolExecutor(n_workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        running = [pool.submit(task, index, versions) for index, versions in missing.items()]
        try:
            for done, finished in enumerate(as_completed(running), 1):
                finished.result()
                report(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _n_elements(config: ModelConfig, missing: Mapping[int, Sequence[tuple[str, int]]]) -> int:
    total = 0
    for index, versions in missing.items():
        block = config.blocks[index]
        shapes = kept_shapes(block, [axis.size for axis in block.axes], config.d_model)
        total += sum(math.prod(shapes[role]) for role, _ in versions)
    return total


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def _quantize_some(
    source: Decoder,
    config: BuildConfig,
    calibration: Calibration,
    work: WorkDirectory,
    index: int,
    versions: Sequence[tuple[str, int]],
) -> None:
    ordered = SortedModel(source, calibration, config.rank.method)
    weights, moments = ordered.decoder.block_weights(index), ordered.moments(index)
    for role, bits in versions:
        made = quantize_weight(source.config.blocks[index], role, weights, moments, config.quantize, bits)
        save_codes(work, index, role, made)


def _quantize_elsewhere(
    model: str,
    config: BuildConfig,
    calibration: Calibration,
    work: WorkDirectory,
    index: int,
    versions: Sequence[tuple[str, int]],
) -> None:
    """In a process of its own, which opens the model once."""
    _quantize_some(_open_once(model), config, calibration, work, index, versions)


def _open(model: str) -> Decoder:
    checkpoint = open_checkpoint(model)
    return Decoder.open(checkpoint, load_model(checkpoint))


_open_once = lru_cache(maxsize=1)(_open)
