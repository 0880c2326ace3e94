"""Quantizes blocks in parallel: one task per block, each on one thread, so that the bits are the same anywhere."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache, partial

import torch

from edgesdk.cloud.calibrate import Calibration
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import BuildConfig
from edgesdk.cloud.families import load_model
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.quantize.block import quantize_block
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.stored import codes_name, save_codes
from edgesdk.cloud.workdir import WorkDirectory

__all__ = ["quantize_blocks"]


def quantize_blocks(
    model: str,
    config: BuildConfig,
    calibration: Calibration,
    work: WorkDirectory,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Quantizes every block that the work directory does not hold yet, as many at once as there are cores."""
    missing = [index for index in range(calibration.n_blocks) if not work.has(codes_name(index))]
    if not missing:
        return
    n_workers = min(len(missing), len(os.sched_getaffinity(0)))
    context = multiprocessing.get_context("spawn")
    task = partial(_quantize_one, model, config, calibration, work)
    with ProcessPoolExecutor(n_workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        running = [pool.submit(task, index) for index in missing]
        try:
            for done, finished in enumerate(as_completed(running), 1):
                finished.result()
                if progress:
                    progress(calibration.n_blocks - len(missing) + done, calibration.n_blocks)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@torch.inference_mode()
def _quantize_one(model: str, config: BuildConfig, calibration: Calibration, work: WorkDirectory, index: int) -> None:
    source = _open(model)
    ordered = SortedModel(source, calibration, config.rank.method)
    weights = ordered.decoder.block_weights(index)
    made = quantize_block(source.config.blocks[index], weights, ordered.moments(index), config.quantize)
    save_codes(work, index, made)


@lru_cache(maxsize=1)
def _open(model: str) -> Decoder:
    checkpoint = open_checkpoint(model)
    return Decoder.open(checkpoint, load_model(checkpoint))
