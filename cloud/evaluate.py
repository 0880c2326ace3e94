"""Quality of levels, measured through the engine: perplexity, and KL and top-1 agreement against the source model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from edgesdk.device import Model

__all__ = ["LevelQuality", "evaluate_levels"]

_SESSION_BYTES = 1 << 28  # of caches of levels that are open at once


@dataclass(frozen=True)
class LevelQuality:
    """perplexity of the next token; kl (source || level) in nats per token, None without a source; top1: agreement."""

    level: int
    perplexity: float
    kl: float | None
    top1: float | None


class Source(Protocol):
    """What levels are measured against: a `Decoder`, or one that was run before."""

    def final_states(self, tokens: Tensor, batch: int, /) -> Tensor:
        """The residual stream after the last block: (n_windows, n_tokens, d_model)."""

    def logits(self, x: Tensor, /) -> Tensor:
        """(..., d_model) -> (..., vocab_size)."""


@torch.inference_mode()
def evaluate_levels(
    path: Path,
    levels: Sequence[int],
    windows: Tensor,
    source: Source | None,
    progress: Callable[[int, int], None] | None = None,
    kv_bits: Sequence[int] | None = None,
) -> tuple[list[LevelQuality], float | None]:
    """Measures levels of an artifact on windows (n_windows, tokens), each window from an empty context.

    kv_bits: of the key/value cache, 8 or 16 for each of `levels`; None: 8 for all

    Returns the levels' quality and the source's perplexity. Every position but the last of a window is scored.
    """
    caches = kv_bits or [8] * len(levels)
    losses, divergences, agreements = (np.zeros(len(levels)) for _ in range(3))
    source_loss, n_scored = 0.0, windows[:, 1:].numel()
    states = None if source is None else source.final_states(windows, 1)
    done = 0
    for first, models in _opened(path, levels, caches, windows.shape[1]):
        for index, window in enumerate(windows):
            target = window[1:]
            own = None
            if source is not None and states is not None:
                own = source.logits(states[index])[:-1].log_softmax(-1)
                probability = own.exp()
                entropy = float((probability * own).sum())
                if first == 0:
                    source_loss -= float(own.gather(1, target[:, None]).sum())
            for i, model in enumerate(models, first):
                logits = torch.from_numpy(model.logits(window.tolist()))[:-1]
                normalizer = logits.logsumexp(-1)
                losses[i] += float((normalizer - logits.gather(1, target[:, None])[:, 0]).double().sum())
                if own is not None:
                    divergences[i] += entropy - float((probability * logits).sum() - normalizer.sum())
                    agreements[i] += float((own.argmax(-1) == logits.argmax(-1)).sum())
                done += 1
                if progress:
                    progress(done, len(windows) * len(levels))
    known = source is not None
    quality = [
        LevelQuality(
            level,
            _perplexity(losses[i] / n_scored),
            max(0.0, divergences[i] / n_scored) if known else None,
            agreements[i] / n_scored if known else None,
        )
        for i, level in enumerate(levels)
    ]
    return quality, _perplexity(source_loss / n_scored) if known else None


def _perplexity(loss: float) -> float:
    """exp(loss), which of a model that predicts nothing would be more than a number holds, and a header may state."""
    return math.exp(min(loss, 700.0))


def _opened(
    path: Path, levels: Sequence[int], kv_bits: Sequence[int], context: int
) -> Iterator[tuple[int, list[Model]]]:
    """Opens as many levels at once as _SESSION_BYTES have room for, and closes them: (place of the first, models)."""
    from edgesdk.device import load

    models: list[Model] = []
    first = n_bytes = 0
    for place, (level, bits) in enumerate(zip(levels, kv_bits, strict=True)):
        model = load(path, level=level, context=context, kv_bits=bits, verify="off")
        needs = model.estimate(level, context)
        n_bytes += needs.kv_bytes + needs.workspace_bytes
        models.append(model)
        if n_bytes > _SESSION_BYTES or place + 1 == len(levels):
            yield first, models
            for opened in models:
                opened.close()
            first, n_bytes, models = place + 1, 0, []
