"""The artifact's tokenizer in the words of a GGUF file (source: the GGUF specification; llama.cpp's vocabularies)."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import UsageError
from edgesdk.formats.exports.level_model import LevelModel

__all__ = ["add_tokenizer"]

# `tokenizer.ggml.pre` by the steps that cut the text, and by what else differs.
_PRE = {
    ("gpt2",): "gpt-2",
    ("digits", "gpt2"): "smollm",
    ("llama3",): "llama-bpe",
    ("qwen2",): "qwen2",
}
# kinds of SPEC.md section 7 to token types: normal, special, user-defined, byte, unused
_TYPES = (1, 3, 4, 6, 5)


def add_tokenizer(gguf: Any, writer: Any, model: LevelModel) -> list[str]:
    """Adds vocabulary, merges or scores, and special tokens; returns remarks.

    Raises UsageError for steps that llama.cpp has no name for. Rows of the embedding that have no token get one that is
    never used.
    """
    header = model.artifact.edge.get("tokenizer")
    if header is None or not header["n_merges"]:
        writer.add_tokenizer_model("no_vocab")
        return ["the file has no tokenizer: llama.cpp reads none without merges"]
    kinds, texts = _vocabulary(model, header["model"] == "byte_bpe")
    merges = np.asarray(model.artifact.tensor("tokenizer.merges/0"))
    merges = merges[np.argsort(merges[:, 2], kind="stable")]
    if header["model"] == "byte_bpe":
        pre = _PRE.get(tuple(header["pre_tokenizer"]))
        if pre is None:
            steps = ", ".join(header["pre_tokenizer"])
            raise UsageError(
                f"llama.cpp has no name for a tokenizer that cuts text by {steps or 'no step'}",
                hint=f"it knows {'; '.join(', '.join(known) for known in _PRE)}",
            )
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(texts)
        writer.add_token_merges([f"{texts[left]} {texts[right]}" for left, right, _, _ in merges.tolist()])
    else:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(texts)
        writer.add_token_scores(_scores(merges, len(texts)))
        writer.add_add_space_prefix(header.get("space_prefix", "none") != "none")
    writer.add_token_types([gguf.TokenType(kind) for kind in kinds])
    bos, eos = model.special_tokens
    if bos is not None:
        writer.add_bos_token_id(bos)
    for name, token in zip(("eos", "eot", "eom"), eos, strict=False):
        getattr(writer, f"add_{name}_token_id")(token)
    if header.get("unk_id") is not None:
        writer.add_unk_token_id(header["unk_id"])
    writer.add_add_bos_token(bool(header.get("add_bos")))
    return []


def _vocabulary(model: LevelModel, bytewise: bool) -> tuple[list[int], list[str]]:
    """Type and text of every row of the embedding."""
    tensor = model.artifact.tensor
    offsets = np.asarray(tensor("tokenizer.offsets/0")).tolist()
    data = np.asarray(tensor("tokenizer.bytes/0")).tobytes()
    letters = _letters()
    kinds, texts = [], []
    for token, kind in enumerate((np.asarray(tensor("tokenizer.kinds/0")) & 7).tolist()):
        value = data[offsets[token] : offsets[token + 1]]
        if kind == 3:
            text = f"<0x{value[0]:02X}>"
        elif bytewise and kind == 0:
            text = "".join(letters[byte] for byte in value)
        else:
            text = value.decode(errors="replace")
        kinds.append(_TYPES[kind])
        texts.append(text or f"[PAD{token}]")
    for token in range(len(texts), model.vocab_size):
        kinds.append(_TYPES[4])
        texts.append(f"[PAD{token}]")
    return kinds, texts


def _letters() -> Mapping[int, str]:
    """What byte-level vocabularies write for each byte (source: GPT-2's encoder)."""
    printable = [b for b in range(256) if chr(b) not in " \xa0\xad" and unicodedata.category(chr(b)) != "Cc"]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def _scores(merges: NDArray[np.uint32], n_tokens: int) -> list[float]:
    """SentencePiece merges the piece of the highest score first: minus the lowest rank that makes it."""
    scores = np.zeros(n_tokens, np.float32)
    for _, _, rank, merged in merges[::-1].tolist():
        scores[merged] = -float(rank)
    return [float(score) for score in scores]
