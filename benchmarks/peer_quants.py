"""The peer's quality side: llama.cpp's quantizations of one F32 source, all with the same importance matrix."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from peer import Peer

__all__ = ["FORMATS", "PeerFile", "quantize_all"]

FORMATS = ("Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_XXS", "Q2_K", "IQ2_M", "IQ2_XS")
_BLOCK_COLUMNS = 256  # that one block of K and IQ formats holds (but IQ4_NL)
_CHUNK_TOKENS = 512
_CHUNKS = 90  # 46,080 tokens, as many as our default build calibrates on


@dataclass(frozen=True)
class PeerFile:
    """A GGUF file that llama-quantize wrote. name: the format that was asked for."""

    name: str
    path: Path

    @cached_property
    def tensors(self) -> list[Any]:
        """The file's tensors: name, tensor_type, n_bytes, shape (columns first)."""
        return list(GGUFReader(self.path).tensors)

    @property
    def file_bytes(self) -> int:
        """All of it: metadata, tokenizer and tensors."""
        return self.path.stat().st_size

    @property
    def tensor_bytes(self) -> int:
        """What a model that is mapped costs: weights, without metadata and tokenizer."""
        return sum(int(tensor.n_bytes) for tensor in self.tensors)

    @property
    def types(self) -> dict[str, int]:
        """How many matrices have which type."""
        return dict(Counter(t.tensor_type.name for t in self.tensors if len(t.shape) == 2).most_common())

    @property
    def fallbacks(self) -> dict[str, int]:
        """Types of the matrices that cannot have a block format, because their columns are no multiple of 256."""
        if self.name == "Q4_0":  # has blocks of 32
            return {}
        odd = (t for t in self.tensors if len(t.shape) == 2 and int(t.shape[0]) % _BLOCK_COLUMNS)
        return dict(Counter(t.tensor_type.name for t in odd).most_common())


def quantize_all(
    peer: Peer,
    source: Path,
    text: Path,
    folder: Path,
    report: Callable[[str], None],
    formats: tuple[str, ...] = FORMATS,
) -> list[PeerFile]:
    """Quantizes an F32 GGUF to every format; files that are newer than the source are kept.

    text: what the importance matrix is computed on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    matrix = folder / "imatrix.gguf"
    if not _newer(matrix, source):
        report(f"importance matrix of {source.name} on {text.name}")
        options = f"-c {_CHUNK_TOKENS} -b {_CHUNK_TOKENS} --chunks {_CHUNKS} -t {os.cpu_count()}".split()
        _run(matrix, [peer.program("llama-imatrix"), "-m", source, "-f", text, *options, "-o"])
    files = []
    for name in formats:
        path = folder / f"{name}.gguf"
        if not _newer(path, matrix):
            report(f"quantizing to {name}")
            _run(path, [peer.program("llama-quantize"), "--imatrix", matrix, source], [name, os.cpu_count()])
        files.append(PeerFile(name, path))
    return files


def _newer(path: Path, than: Path) -> bool:
    return path.is_file() and path.stat().st_mtime >= than.stat().st_mtime


def _run(out: Path, before: list[Any], after: list[Any] | None = None) -> None:
    """Runs a program that writes `out`, whose name comes between the two lists; its talk goes beside the file."""
    temporary = out.with_name(f"partial-{out.name}")
    with out.with_suffix(".log").open("w") as log:
        done = subprocess.run([*map(str, before), str(temporary), *map(str, after or [])], stdout=log, stderr=log)
    if done.returncode != 0 or not temporary.is_file():
        raise SystemExit(f"error: {before[0].name} ended with {done.returncode}; see {out.with_suffix('.log')}")
    os.replace(temporary, out)
