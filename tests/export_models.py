"""Small artifacts for the tests of exports: layers that differ, blocks that are dropped, biases, and a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reference_model import ReferenceModel
from tiny_llama import CHAT_TEMPLATE, write_tokenizer
from tiny_model import tiny_config, write_random_artifact

from edgesdk.cloud.tokenizer import import_tokenizer
from edgesdk.formats import Artifact
from edgesdk.formats.exports import ExportRequest, compare, find_format, open_level_model
from edgesdk.formats.exports.check import Agreement

__all__ = ["FULL", "KINDS", "LEVELS", "export_request", "oracle", "run_check", "write_export_model"]

VOCAB_SIZE = 330  # a few rows more than the tokenizer has tokens
CONTEXT = 64
# Per layer (qk, vo) and width, smallest level first: level 0 drops an attention and an MLP.
_LADDER = (
    ((16, 24), (64,), (0, 0), (32,), (24, 16), (0,)),
    ((24, 32), (96,), (16, 24), (160,), (32, 16), (64,)),
    ((32, 32), (160,), (32, 32), (160,), (32, 32), (160,)),
)
LEVELS = range(len(_LADDER))
FULL = LEVELS[-1]
KINDS = ("tied", "biases")


def write_export_model(path: Path, kind: str) -> Path:
    """tied: no biases but those that levels bring; biases: everywhere, at the full level too, and a head of its own."""
    biases = kind == "biases"
    config = tiny_config(n_layers=3, n_heads=4, vocab_size=VOCAB_SIZE, biases=biases, tied_head=not biases)
    write_random_artifact(path, config, _LADDER, tokenizer=_tokenizer(), full_bias=biases)
    return path


@lru_cache(maxsize=1)
def _tokenizer() -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    with TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        imported = import_tokenizer(Path(folder), chat_template=CHAT_TEMPLATE)
    return dict(imported.header), dict(imported.tensors)


def export_request(path: Path, level: int, weights: str, **changes: Any) -> ExportRequest:
    """A request without torch: for formats that need no module."""
    model = open_level_model(Artifact.open(path), level)
    fields = {"context": CONTEXT, "dynamic": True, "opset": 21, "tokenizer": None, "chat_template": None}
    fields |= {"buffered": None, "functional": None, **changes}
    return ExportRequest(model=model, weights=weights, **fields)


def oracle(path: Path, level: int) -> Callable[[Sequence[int]], NDArray[np.float32]]:
    """Logits of the engine's oracle in NumPy, with float activations."""
    model = ReferenceModel(path, level, float_activations=True)
    return lambda tokens: np.asarray(model.logits(list(tokens)), np.float32)


def run_check(path: Path, level: int, to: str, weights: str, folder: Path, n_greedy: int = 8) -> Agreement:
    """Writes an export and runs it beside the oracle; folder: is written anew."""
    request = export_request(path, level, weights)
    found, _ = find_format(to, weights)
    folder.mkdir()
    found.write(request, folder)
    tokens = np.random.default_rng(1).integers(0, VOCAB_SIZE, 24).tolist()
    return compare(oracle(path, level), found.open_runtime(request, folder), tokens, tokens[:7], n_greedy)
