"""Quantizes weights in parallel: one task per block, each on one thread, so that the bits are the same anywhere."""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache, partial

import torch

from edgesdk.cloud.calibrate import Calibration
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import BuildConfig
from edgesdk.cloud.families import load_model
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.quantize.block import quantize_weight
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.stored import codes_name, save_codes
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["quantize_blocks"]


def quantize_blocks(
    model: str,
    config: BuildConfig,
    calibration: Calibration,
    work: WorkDirectory,
    wanted: Iterable[tuple[int, str, int]],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Quantizes those of `wanted` (block index, role, bits) that the work directory does not hold yet.

    Blocks are done as many at once as there are cores.
    """
    missing: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for index, role, bits in wanted:
        if not work.has(codes_name(index, role, bits)):
            missing[index].append((role, bits))
    if not missing:
        return
    n_workers = min(len(missing), len(os.sched_getaffinity(0)))
    context = multiprocessing.get_context("spawn")
    task = partial(_quantize_some, model, config, calibration, work)
    with ProcessPoolExecutor(n_workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        running = [pool.submit(task, index, versions) for index, versions in missing.items()]
        try:
            for done, finished in enumerate(as_completed(running), 1):
                finished.result()
                if progress:
                    progress(done, len(missing))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@torch.inference_mode()
def _quantize_some(
    model: str,
    config: BuildConfig,
    calibration: Calibration,
    work: WorkDirectory,
    index: int,
    versions: Sequence[tuple[str, int]],
) -> None:
    source = _open(model)
    ordered = SortedModel(source, calibration, config.rank.method)
    weights, moments = ordered.decoder.block_weights(index), ordered.moments(index)
    for role, bits in versions:
        made = quantize_weight(source.config.blocks[index], role, weights, moments, config.quantize, bits)
        save_codes(work, index, role, made)


@lru_cache(maxsize=1)
def _open(model: str) -> Decoder:
    checkpoint = open_checkpoint(model)
    return Decoder.open(checkpoint, load_model(checkpoint))
