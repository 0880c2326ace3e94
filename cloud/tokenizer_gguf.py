"""Reads the tokenizer of a GGUF file: metadata keys `tokenizer.*` (source: the GGUF specification of ggml)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgesdk.cloud.checkpoint.gguf_file import read_gguf
from edgesdk.cloud.tokenizer_tables import (
    BYTE,
    NORMAL,
    SPECIAL,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    byte_alphabet,
    refuse,
    token_bytes,
)
from edgesdk.cloud.untrusted import malformed
from edgesdk.errors import ModelError

__all__ = ["read_tokenizer_gguf"]

_PREFIX = "tokenizer.ggml."
_BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")
_MAX_PIECE_CHARACTERS = 1024  # of SentencePiece: every way to cut one in two is looked at
# token_type: normal, unknown, control, user-defined, unused, byte
_KINDS = {1: NORMAL, 2: SPECIAL, 3: SPECIAL, 4: USER_DEFINED, 5: UNUSED, 6: BYTE}
# `tokenizer.ggml.pre`: steps, and fields where they differ from the usual ones. A file without it is taken for GPT-2.
_LLAMA3: tuple[list[str], dict[str, object]] = (["llama3"], {"ignore_merges": True, "add_bos": True})
_PRE: dict[str, tuple[list[str], dict[str, object]]] = {
    "default": (["gpt2"], {}),
    "gpt-2": (["gpt2"], {}),
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "qwen2": (["qwen2"], {"normalizer": "nfc"}),
    "smollm": (["digits", "gpt2"], {}),
    "starcoder": (["digits", "gpt2"], {}),
}


def read_tokenizer_gguf(path: Path) -> tuple[Vocabulary, str | None]:
    """The vocabulary of a GGUF file, and its chat template.

    Raises ModelError for a file without a tokenizer, or with one that is not supported.
    """
    metadata = read_gguf(path).metadata
    with malformed(f"the tokenizer of {path}"):
        return _read(path, metadata)


def _read(path: Path, metadata: Mapping[str, Any]) -> tuple[Vocabulary, str | None]:
    fields = {k.removeprefix(_PREFIX): v for k, v in metadata.items() if k.startswith(_PREFIX)}
    if not isinstance(fields.get("tokens"), list):
        raise ModelError(f"{path} has no tokenizer", hint="use a GGUF file with `tokenizer.ggml.tokens`")
    readers = {"gpt2": _byte_level, "llama": _sentencepiece}
    model, pre = fields.get("model"), fields.get("pre", "default")
    unsupported = [] if model in readers else [f"model {model!r} ({', '.join(readers)} are supported)"]
    if model == "gpt2" and pre not in _PRE:
        unsupported.append(f"pre-tokenizer {pre!r} ({', '.join(_PRE)} are supported)")
    refuse(path, unsupported)
    vocabulary = readers[str(model)](path, fields)
    template = metadata.get("tokenizer.chat_template")
    return vocabulary, template if isinstance(template, str) else None


def _fields(fields: Mapping[str, Any], n_tokens: int, changes: Mapping[str, object]) -> dict[str, object]:
    """Header fields of SPEC.md section 7; the file's own add_bos_token wins over `changes`."""

    def token(name: str) -> int | None:
        value = fields.get(f"{name}_token_id")
        return value if isinstance(value, int) and 0 <= value < n_tokens else None

    ends = (token(name) for name in ("eos", "eot", "eom"))
    result: dict[str, object] = {
        "normalizer": "none",
        "space_prefix": "none",
        "strip_leading_space": False,
        "byte_fallback": False,
        "fuse_unk": False,
        "ignore_merges": False,
        "add_bos": False,
        "bos_id": token("bos"),
        "unk_id": None,
        "eos_ids": list(dict.fromkeys(i for i in ends if i is not None)),
    }
    result |= changes
    result["add_bos"] = bool(fields.get("add_bos_token", result["add_bos"])) and result["bos_id"] is not None
    return result


def _kinds(path: Path, fields: Mapping[str, Any]) -> list[int]:
    types = fields.get("token_type") or [1] * len(fields["tokens"])
    if len(types) != len(fields["tokens"]):
        raise ModelError(f"{path} has {len(fields['tokens'])} tokens, but {len(types)} token types")
    return [_KINDS.get(t, NORMAL) for t in types]


def _byte_level(path: Path, fields: Mapping[str, Any]) -> Vocabulary:
    texts: list[str] = fields["tokens"]
    kinds = _kinds(path, fields)
    alphabet = byte_alphabet()
    tokens = []
    for i, text in enumerate(texts):
        value = token_bytes(text, alphabet) if kinds[i] == NORMAL else None
        if not text or (value is None and kinds[i] == NORMAL):
            kinds[i] = UNUSED
        tokens.append(text.encode() if value is None else value)
    ids = {text: i for i, text in enumerate(texts)}
    merges: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    missing = 0
    for rank, merge in enumerate(fields.get("merges", [])):
        left, _, right = merge.partition(" ")
        if left in ids and right in ids and left + right in ids:
            merges[ids[left], ids[right]] = (ids[left], ids[right], rank, ids[left + right])
        else:
            missing += 1
    refuse(path, [f"{missing} merges of tokens that are not in the vocabulary"] if missing else [])
    steps, changes = _PRE[fields.get("pre", "default")]
    header = {"model": "byte_bpe", "pre_tokenizer": steps, **_fields(fields, len(texts), changes)}
    return Vocabulary(tokens, kinds, list(merges.values()), header)


def _sentencepiece(path: Path, fields: Mapping[str, Any]) -> Vocabulary:
    texts: list[str] = fields["tokens"]
    scores = fields.get("scores")
    if not isinstance(scores, list) or len(scores) != len(texts):
        raise ModelError(f"{path} has {len(texts)} SentencePiece tokens without a score for each")
    if longest := next((text for text in texts if len(text) > _MAX_PIECE_CHARACTERS), ""):
        raise ModelError(f"{path} has a token of {len(longest)} characters, expected at most {_MAX_PIECE_CHARACTERS}")
    kinds = _kinds(path, fields)
    tokens = [
        _piece_bytes(path, text) if kind == BYTE else text.encode() for text, kind in zip(texts, kinds, strict=True)
    ]
    kinds = [kind if token else UNUSED for kind, token in zip(kinds, tokens, strict=True)]
    unknown = fields.get("unknown_token_id", 0)
    prefix = bool(fields.get("add_space_prefix", True))
    changes: dict[str, object] = {
        "space_prefix": "piece" if prefix else "none",
        "strip_leading_space": prefix,
        "byte_fallback": kinds.count(BYTE) == 256,
        "fuse_unk": True,
        "add_bos": True,
        "unk_id": unknown if 0 <= unknown < len(texts) else None,
    }
    header = {"model": "sentencepiece_bpe", "pre_tokenizer": [], **_fields(fields, len(texts), changes)}
    return Vocabulary(tokens, kinds, _scored_merges(texts, scores, kinds), header)


def _piece_bytes(path: Path, text: str) -> bytes:
    if not _BYTE_TOKEN.fullmatch(text):
        raise ModelError(f"{path}: byte token {text[:80]!r} is not written as <0xNN>")
    return bytes.fromhex(text[3:5])


def _scored_merges(texts: list[str], scores: list[float], kinds: list[int]) -> list[tuple[int, int, int, int]]:
    """Every way to put a piece together from two others; the piece of the highest score is merged first.

    SentencePiece compares scores of the merged piece and then positions: pieces of equal score share a rank.
    """
    ids = {text: i for i, text in enumerate(texts) if kinds[i] == NORMAL}
    ranks = {score: rank for rank, score in enumerate(sorted({scores[i] for i in ids.values()}, reverse=True))}
    merges = []
    for text, i in ids.items():
        for cut in range(1, len(text)):
            left, right = ids.get(text[:cut]), ids.get(text[cut:])
            if left is not None and right is not None:
                merges.append((left, right, ranks[scores[i]], i))
    return merges
