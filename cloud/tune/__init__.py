"""What is done after quantization, with gradients of the KL to the source: see widen.py and scales.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from edgesdk.cloud.config import BuildConfig
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.stored import StoredWeights
from edgesdk.cloud.tune.scales import tune_scales
from edgesdk.cloud.tune.student import Student
from edgesdk.cloud.tune.widen import widen
from edgesdk.cloud.workdir import WorkDirectory, fingerprint

__all__ = ["tune"]

Progress = Callable[[int, int], None]


def tune(
    config: BuildConfig,
    source: Decoder,
    ordered: SortedModel,
    weights: StoredWeights,
    windows: Tensor,
    root: Path,
    key: list[Any],
    progress: Progress | None = None,
) -> StoredWeights:
    """The quantized weights with the wide ones chosen, and scales and norms distilled.

    windows: (n, tokens) calibration text; key: what the quantized weights depend on.
    """
    settings, group = config.tune, config.quantize.group
    if settings.wide_share:
        wide = WorkDirectory(root, "wide", fingerprint(key, settings.wide_share, settings.wide_windows))
        student = Student.start(ordered, weights, group)
        text = windows[: settings.wide_windows]
        bits = widen(ordered, student, text, settings.wide_share, config.quantize, wide, progress)
        weights = replace(weights, wide=wide, bits=bits)
    if settings.n_epochs:
        tuned = WorkDirectory(root, "tuned", fingerprint(key, settings))
        student = Student.start(ordered, weights, group)
        tune_scales(source, student, windows, settings, tuned, progress)
        weights = replace(weights, tuned=tuned)
    return weights
