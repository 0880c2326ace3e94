"""Runs an export in its own runtime beside the artifact's dequantized weights, and says how far apart they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgesdk.formats.exports.natural import Floats

__all__ = ["Agreement", "Runtime", "compare"]


class Runtime(Protocol):
    """An export, opened in the runtime that it was made for."""

    name: str  # with its version

    def step(self, tokens: Sequence[int], position: int) -> Floats:
        """Logits (vocab_size,) behind the last token; they stand at `position` and after. 0 begins a new text."""
        ...


@dataclass(frozen=True)
class Agreement:
    """max_error: largest difference of a logit; max_logit: largest one of the artifact, by amount

    kl: nats per token, artifact || export; top1: share of positions where both find the same token likeliest
    ours, theirs: greedy continuations of the prompt; tokens_per_s: of theirs, one token at a time behind the first
    """

    runtime: str
    n_tokens: int
    max_error: float
    max_logit: float
    kl: float
    top1: float
    ours: list[int]
    theirs: list[int]
    tokens_per_s: float


def compare(
    reference: Callable[[Sequence[int]], Floats],
    runtime: Runtime,
    text: Sequence[int],
    prompt: Sequence[int],
    n_greedy: int,
) -> Agreement:
    """reference: logits (n_tokens, vocab_size) of a whole text, from the artifact's dequantized weights in float32.

    text: tokens that go through the export one by one; prompt: tokens that go through it at once, before n_greedy
    tokens follow greedily
    """
    wanted = reference(text)
    found = np.stack([runtime.step([token], position) for position, token in enumerate(text)])
    first = runtime.step(prompt, 0)
    whole = reference(prompt)[-1]
    theirs, seconds = _greedy(runtime, first, len(prompt), n_greedy)
    error = max(float(np.abs(found - wanted).max()), float(np.abs(first - whole).max()))
    logs = _log_softmax(wanted)
    kl = float((np.exp(logs) * (logs - _log_softmax(found))).sum(-1).mean())
    return Agreement(
        runtime.name,
        len(text),
        error,
        float(np.abs(wanted).max()),
        kl,
        float((found.argmax(-1) == wanted.argmax(-1)).mean()),
        _reference_greedy(reference, prompt, n_greedy),
        theirs,
        (n_greedy - 1) / seconds if seconds else 0.0,
    )


def _greedy(runtime: Runtime, logits: Floats, position: int, n_tokens: int) -> tuple[list[int], float]:
    """The likeliest tokens one after the other, and the seconds that all but the first took."""
    tokens = [int(logits.argmax())]
    start = time.perf_counter()
    while len(tokens) < n_tokens:
        logits = runtime.step(tokens[-1:], position + len(tokens) - 1)
        tokens.append(int(logits.argmax()))
    return tokens, time.perf_counter() - start


def _reference_greedy(reference: Callable[[Sequence[int]], Floats], prompt: Sequence[int], n_tokens: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(n_tokens):
        tokens.append(int(reference(tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def _log_softmax(logits: Floats) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))
