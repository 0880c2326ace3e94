"""What tests of the compiler share: a small configuration, and a checkpoint opened with its blocks in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import AllocateConfig, BuildConfig, CalibrateConfig, EvaluateConfig, TuneConfig
from edgesdk.cloud.families import load_model
from edgesdk.cloud.moments import Moments, MomentsAccumulator
from edgesdk.cloud.reference import Decoder, run_block

__all__ = ["SMALL", "collected", "opened"]

SMALL = BuildConfig(
    calibrate=CalibrateConfig(n_windows=16, window_tokens=64),
    allocate=AllocateConfig(n_windows=2, window_tokens=32, max_rate=0.4, step=0.2),
    tune=TuneConfig(wide_share=0.2, wide_windows=4),
    evaluate=EvaluateConfig(n_windows=2, window_tokens=48),
)


def opened(folder: Path) -> Decoder:
    """The source model; each block is read once."""
    checkpoint = open_checkpoint(str(folder))
    decoder = Decoder.open(checkpoint, load_model(checkpoint))
    blocks = [decoder.block_weights(i) for i in range(len(decoder.config.blocks))]
    return replace(decoder, block_weights=lambda i: blocks[i])


def collected(decoder: Decoder, tokens: torch.Tensor) -> list[Moments]:
    """Moments of every block on tokens (n_windows, length)."""
    found, x = [], decoder.embed(tokens)
    for index, block in enumerate(decoder.config.blocks):
        accumulator = MomentsAccumulator()
        out = run_block(block, decoder.block_weights(index), x, decoder.config.norm_eps, accumulator.tap)
        accumulator.see_residual(x, out)
        found.append(accumulator.finish())
        x = out
    return found
