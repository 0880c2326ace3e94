"""Quality of levels, measured through the engine: perplexity, and KL and top-1 agreement against the source model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgesdk.cloud.reference import Decoder

__all__ = ["LevelQuality", "evaluate_levels"]


@dataclass(frozen=True)
class LevelQuality:
    """perplexity of the next token; kl (source || level) in nats per token, None without a source; top1: agreement."""

    level: int
    perplexity: float
    kl: float | None
    top1: float | None


@torch.inference_mode()
def evaluate_levels(
    path: Path,
    levels: Sequence[int],
    windows: Tensor,
    source: Decoder | None,
    progress: Callable[[int, int], None] | None = None,
    kv_bits: Sequence[int] | None = None,
) -> tuple[list[LevelQuality], float | None]:
    """Measures levels of an artifact on windows (n_windows, tokens), each window from an empty context.

    kv_bits: of the key/value cache, 8 or 16 for each of `levels`; None: 8 for all

    Returns the levels' quality and the source's perplexity. Every position but the last of a window is scored.
    """
    from edgesdk.device import load

    caches = kv_bits or [8] * len(levels)
    models = [
        load(path, level=level, context=windows.shape[1], kv_bits=bits, verify="off")
        for level, bits in zip(levels, caches, strict=True)
    ]
    losses, divergences, agreements = (np.zeros(len(levels)) for _ in range(3))
    source_loss, n_scored = 0.0, 0
    for index, window in enumerate(windows):
        target = window[1:]
        n_scored += len(target)
        own = source.forward(window[None])[0, :-1].log_softmax(-1) if source is not None else None
        if own is not None:
            source_loss -= float(own.gather(1, target[:, None]).sum())
            probability = own.exp()
            entropy = float((probability * own).sum())
        for i, model in enumerate(models):
            logits = torch.from_numpy(model.logits(window.tolist()))[:-1]
            normalizer = logits.logsumexp(-1)
            losses[i] += float((normalizer - logits.gather(1, target[:, None])[:, 0]).double().sum())
            if own is not None:
                divergences[i] += entropy - float((probability * logits).sum() - normalizer.sum())
                agreements[i] += float((own.argmax(-1) == logits.argmax(-1)).sum())
            if progress:
                progress(index * len(models) + i + 1, len(windows) * len(models))
    for model in models:
        model.close()
    known = source is not None
    quality = [
        LevelQuality(
            level,
            math.exp(losses[i] / n_scored),
            max(0.0, divergences[i] / n_scored) if known else None,
            agreements[i] / n_scored if known else None,
        )
        for i, level in enumerate(levels)
    ]
    return quality, math.exp(source_loss / n_scored) if known else None
