"""What every kind of tokenizer source is turned into, and the tables that the artifact stores."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import ModelError

__all__ = [
    "BYTE",
    "KIND_MASK",
    "NORMAL",
    "NORMALIZED",
    "PATTERNS",
    "SPACE_MARK",
    "SPECIAL",
    "TAKES_SPACE_AFTER",
    "TAKES_SPACE_BEFORE",
    "UNUSED",
    "USER_DEFINED",
    "Vocabulary",
    "byte_alphabet",
    "refuse",
    "tables",
    "token_bytes",
]

SPACE_MARK = "\u2581"
NORMAL, SPECIAL, USER_DEFINED, BYTE, UNUSED, KIND_MASK = 0, 1, 2, 3, 4, 7
TAKES_SPACE_BEFORE, TAKES_SPACE_AFTER, NORMALIZED = 8, 16, 32

_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
# The regular expression of each step that is one.
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": _WORDS + r"|\p{N}{1,3}" + _REST,
    "qwen2": _WORDS + r"|\p{N}" + _REST,
}


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer in the terms of SPEC.md section 7.

    tokens: bytes of each id; kinds: kind and flags of each id; merges: (left, right, rank, merged)
    fields: the header fields beside the sizes and `chat`
    """

    tokens: list[bytes]
    kinds: list[int]
    merges: list[tuple[int, int, int, int]]
    fields: dict[str, object]


def byte_alphabet() -> dict[str, int]:
    """The printable characters that byte-level vocabularies write for bytes (source: GPT-2's encoder).

    Printable Latin-1 stands for itself; every other byte gets the next code point from U+0100 on.
    """
    printable = [b for b in range(256) if chr(b) not in " \xa0\xad" and unicodedata.category(chr(b)) != "Cc"]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def token_bytes(text: str, alphabet: dict[str, int]) -> bytes | None:
    """Bytes of a byte-level token; None when it holds characters that stand for none."""
    if any(c not in alphabet for c in text):
        return None
    return bytes(alphabet[c] for c in text)


def refuse(source: object, unsupported: list[str]) -> None:
    """Raises ModelError with everything in `unsupported`; returns when there is nothing."""
    if unsupported:
        raise ModelError(
            f"the tokenizer of {source} has parts that are not supported:\n"
            + "\n".join(f"  - {u}" for u in unsupported),
            hint="byte-level BPE (GPT-2, SmolLM, Llama 3, Qwen 2) and SentencePiece-BPE (Llama 2, Mistral, Gemma) are",
        )


def tables(vocabulary: Vocabulary) -> dict[str, NDArray[np.generic]]:
    """The arrays `tokenizer.*` of the artifact, by name."""
    tokens = vocabulary.tokens
    offsets = np.zeros(len(tokens) + 1, np.uint32)
    offsets[1:] = np.cumsum([len(t) for t in tokens])
    order = sorted(range(len(tokens)), key=tokens.__getitem__)
    merges = np.array(sorted(vocabulary.merges), np.uint32).reshape(-1, 4)
    return {
        "tokenizer.bytes": np.frombuffer(b"".join(tokens), np.uint8),
        "tokenizer.offsets": offsets,
        "tokenizer.kinds": np.array(vocabulary.kinds, np.uint8),
        "tokenizer.sorted": np.array(order, np.uint32),
        "tokenizer.merges": merges,
    }
