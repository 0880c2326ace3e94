"""One measure for both sides: perplexity, KL to the float source and top-1 agreement on the same windows.

The source's log-probabilities are computed once and kept in a file. `StoredSource` stands in for the source's decoder
in `evaluate_levels`, which measures our levels through the engine; `score_decoder` measures any torch decoder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.families import load_model
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.workdir import fingerprint

__all__ = ["Score", "StoredSource", "open_decoder", "score_decoder"]


@dataclass(frozen=True)
class Score:
    """perplexity of the next token; kl (source || model) in nats per token; top1: share of equal first guesses."""

    perplexity: float
    kl: float
    top1: float


def open_decoder(model: Path) -> Decoder:
    """The torch decoder of a checkpoint; the types of a GGUF file are dequantized by the gguf package.

    Raises ModelError that names the types which it cannot dequantize.
    """
    checkpoint = open_checkpoint(str(model))
    return Decoder.open(checkpoint, load_model(checkpoint))


@dataclass(frozen=True)
class StoredSource:
    """windows: (n_windows, n_tokens); log_probabilities: (n_windows, n_tokens, vocab_size) float32, read from a file.

    key: a hash of the source's weights and the windows
    """

    key: str
    windows: Tensor
    log_probabilities: Tensor

    @classmethod
    @torch.inference_mode()
    def compute(cls, model: Path, windows: Tensor, folder: Path, report: Callable[[str], None]) -> StoredSource:
        """Runs the source, or finds what an earlier run left in `folder`."""
        key = fingerprint(open_checkpoint(str(model)).source.sha256, windows.tolist())
        path = folder / f"source-{key[:16]}.npy"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            report("log-probabilities of the source")
            decoder = open_decoder(model)
            shape = (*windows.shape, decoder.config.vocab_size)
            temporary = path.with_suffix(".partial")
            out = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
            for i, state in enumerate(decoder.final_states(windows, 1)):
                out[i] = decoder.logits(state).log_softmax(-1).numpy()
            out.flush()
            os.replace(temporary, path)
        return cls(key, windows, torch.from_numpy(np.load(path, mmap_mode="c")))

    def first(self, n_windows: int) -> StoredSource:
        """The same for the first windows only."""
        return replace(self, windows=self.windows[:n_windows], log_probabilities=self.log_probabilities[:n_windows])

    @property
    def perplexity(self) -> float:
        """Of the source itself."""
        loss = 0.0
        for window, known in zip(self.windows, self.log_probabilities, strict=True):
            loss -= float(known[:-1].gather(1, window[1:, None]).double().sum())
        return math.exp(loss / self.n_scored)

    @property
    def n_scored(self) -> int:
        """Positions that count: all but the last of each window."""
        return self.windows.shape[0] * (self.windows.shape[1] - 1)

    def final_states(self, tokens: Tensor, _batch: int) -> Tensor:
        """In place of a decoder's: what `logits` needs of some of the windows, in their order."""
        first = int((self.windows == tokens[0]).all(1).nonzero()[0, 0])
        some = slice(first, first + len(tokens))
        if not torch.equal(self.windows[some], tokens):
            raise ValueError("the source was not run on these windows, or in another order")
        return self.log_probabilities[some]

    def logits(self, x: Tensor) -> Tensor:
        """Log-probabilities are logits."""
        return x


@torch.inference_mode()
def score_decoder(decoder: Decoder, source: StoredSource) -> Score:
    """Measures a float decoder; every position but the last of a window counts, each block is loaded once."""
    loss = divergence = agreement = 0.0
    states = decoder.final_states(source.windows, 1)
    for window, state, known in zip(source.windows, states, source.log_probabilities, strict=True):
        own, own_source = decoder.logits(state[:-1]).log_softmax(-1), known[:-1]
        loss -= float(own.gather(1, window[1:, None]).double().sum())
        divergence += float((own_source.exp() * (own_source - own)).sum(-1).double().sum())
        agreement += float((own_source.argmax(-1) == own.argmax(-1)).sum())
    n = source.n_scored
    return Score(math.exp(loss / n), max(0.0, divergence / n), agreement / n)
