"""Reads Hugging Face's tokenizer.json (the serialization of the `tokenizers` library) and the files beside it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgesdk.cloud.tokenizer_tables import (
    BYTE,
    NORMAL,
    NORMALIZED,
    PATTERNS,
    SPACE_MARK,
    SPECIAL,
    TAKES_SPACE_AFTER,
    TAKES_SPACE_BEFORE,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    byte_alphabet,
    refuse,
    token_bytes,
)
from edgesdk.cloud.untrusted import MAX_TOKENS, malformed, read_json

__all__ = ["read_tokenizer_json"]

_STEPS = {pattern: step for step, pattern in PATTERNS.items()}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_MARK_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
_UNMARK_SPACES = {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "}


def read_tokenizer_json(path: Path, tokenizer_config: Path | None, generation_config: Path | None) -> Vocabulary:
    """The vocabulary of a tokenizer.json; the two configurations name its first and end tokens.

    Raises ModelError that lists every part which is not supported.
    """
    source = read_json(path)
    config = read_json(tokenizer_config) if tokenizer_config else {}
    generation = read_json(generation_config) if generation_config else {}
    with malformed(f"the tokenizer in {path.parent}"):
        return _vocabulary(path, source, config, generation)


def _vocabulary(
    path: Path, source: dict[str, Any], config: Mapping[str, Any], generation: Mapping[str, Any]
) -> Vocabulary:
    bytewise = any(p.get("type") == "ByteLevel" for p in (*_parts(source, "pre_tokenizer"), *_parts(source, "decoder")))
    reader = _Reader(source, bytewise)
    steps, fields = (reader.byte_level if bytewise else reader.sentencepiece)()
    tokens, kinds, merges = reader.vocabulary(bool(fields["byte_fallback"]), str(fields["space_prefix"]))
    template_bos = reader.template_bos()
    refuse(path, reader.unsupported)
    ids = reader.ids
    bos = ids.get(_text(config.get("bos_token"))) if template_bos is None else template_bos
    add_bos = config.get("add_bos_token")
    eos = generation.get("eos_token_id", [])
    eos_ids = [ids.get(_text(config.get("eos_token"))), *(eos if isinstance(eos, list) else [eos])]
    fields |= {
        "pre_tokenizer": steps,
        "add_bos": (template_bos is not None if add_bos is None else bool(add_bos)) and bos is not None,
        "bos_id": bos,
        "eos_ids": list(dict.fromkeys(i for i in eos_ids if isinstance(i, int) and 0 <= i < len(tokens))),
    }
    return Vocabulary(tokens, kinds, merges, fields)


def _text(token: Any) -> str:
    """A token in tokenizer_config.json is its text, or an object that holds it."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _parts(source: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The steps of a component, with nested sequences opened."""

    def opened(node: dict[str, Any] | None) -> list[dict[str, Any]]:
        if node is None:
            return []
        if node.get("type") != "Sequence":
            return [node]
        inner = next((v for v in node.values() if isinstance(v, list)), [])
        return [step for child in inner for step in opened(child)]

    return opened(source.get(name))


def _brief(node: Mapping[str, Any]) -> str:
    text = json.dumps(node, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."


class _Reader:
    """Walks the components of one tokenizer.json and collects what is not supported."""

    def __init__(self, source: dict[str, Any], bytewise: bool) -> None:
        self.source = source
        self.bytewise = bytewise
        self.unsupported: list[str] = []
        self.model: dict[str, Any] = source.get("model") or {}
        self.added: list[dict[str, Any]] = source.get("added_tokens") or []
        self.ids: dict[str, int] = dict(self.model.get("vocab") or {}) if self._is_bpe() else {}
        self.ids |= {token["content"]: token["id"] for token in self.added}
        if not all(isinstance(i, int) and 0 <= i < MAX_TOKENS for i in self.ids.values()):
            raise ValueError(f"an id is not an integer from 0 to {MAX_TOKENS - 1}")

    def byte_level(self) -> tuple[list[str], dict[str, object]]:
        """Steps and header fields of a byte-level BPE."""
        steps = []
        for part in _parts(self.source, "pre_tokenizer"):
            step = self._byte_step(part)
            if step is None:
                self.unsupported.append(f"pre-tokenizer {_brief(part)}")
            elif step:
                steps.append(step)
        normalizers = _parts(self.source, "normalizer")
        self._expect("normalizer", [n for n in normalizers if n.get("type") != "NFC"])
        self._expect("decoder", [d for d in _parts(self.source, "decoder") if d.get("type") != "ByteLevel"])
        if self.model.get("byte_fallback"):
            self.unsupported.append("byte_fallback in a byte-level BPE")
        return steps, self._fields("byte_bpe", "nfc" if normalizers else "none", "none", strip=False)

    def sentencepiece(self) -> tuple[list[str], dict[str, object]]:
        """Steps and header fields of a SentencePiece-BPE, whose spaces are U+2581."""
        normalizers = _parts(self.source, "normalizer")
        prepend = bool(normalizers) and normalizers[0] == {"type": "Prepend", "prepend": SPACE_MARK}
        marks = normalizers[1:] if prepend else normalizers
        self._expect("normalizer", [n for n in marks if n != _MARK_SPACES])
        steps: list[str] = []
        prefix = "piece" if prepend else "none"
        marked = _MARK_SPACES in marks
        for part in _parts(self.source, "pre_tokenizer"):
            if part.get("type") == "Metaspace" and part.get("replacement") == SPACE_MARK and not (prepend or marked):
                old = "always" if part.get("add_prefix_space", True) else "never"
                scheme = part.get("prepend_scheme", old)
                prefix = {"always": "each", "first": "first"}.get(scheme, "none")
                steps = ["words"] if part.get("split", True) else []
                marked = True
            elif not (marked and part.get("type") == "Split" and part.get("pattern") == {"String": " "}):
                self.unsupported.append(f"pre-tokenizer {_brief(part)}")
        if not marked:
            self.unsupported.append(
                "text whose spaces are neither bytes nor U+2581 (no ByteLevel, Metaspace or Replace)"
            )
        decoders = _parts(self.source, "decoder")
        strips = [d for d in decoders if d == {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
        known = (_UNMARK_SPACES, {"type": "ByteFallback"}, {"type": "Fuse"}, *strips)
        self._expect("decoder", [d for d in decoders if d not in known])
        if _UNMARK_SPACES not in decoders:
            self.unsupported.append("decoder without the Replace of U+2581 by a space")
        return steps, self._fields("sentencepiece_bpe", "none", prefix, strip=bool(strips))

    def vocabulary(
        self, byte_fallback: bool, prefix: str
    ) -> tuple[list[bytes], list[int], list[tuple[int, int, int, int]]]:
        """Bytes and kinds by id, and merges; ids that no token has are unused."""
        if not self._is_bpe():
            self.unsupported.append(f"model {self.model.get('type')!r} (BPE is supported)")
            return [], [], []
        vocab: dict[str, int] = self.model["vocab"]
        n_tokens = 1 + max(self.ids.values(), default=-1)
        tokens, kinds = [b""] * n_tokens, [UNUSED] * n_tokens
        alphabet = byte_alphabet()
        for text, i in vocab.items():
            byte = _BYTE_TOKEN.fullmatch(text) if byte_fallback else None
            value = token_bytes(text, alphabet) if self.bytewise else bytes.fromhex(byte[1]) if byte else text.encode()
            tokens[i] = text.encode() if value is None else value
            kinds[i] = UNUSED if not value else BYTE if byte else NORMAL
        if byte_fallback and kinds.count(BYTE) != 256:
            self.unsupported.append(f"byte_fallback with {kinds.count(BYTE)} of 256 byte tokens")
        for token in self.added:
            if token["content"] in vocab and tokens[token["id"]] != token["content"].encode():
                self.unsupported.append(f"added token {token['content']!r}, which is other bytes in the vocabulary")
            tokens[token["id"]] = token["content"].encode()
            kinds[token["id"]] = self._added_kind(token, prefix)
        return tokens, kinds, self._merges(vocab)

    def template_bos(self) -> int | None:
        """Id of the token that the post-processor puts first."""
        bos = None
        for part in _parts(self.source, "post_processor"):
            if part.get("type") == "ByteLevel":
                continue
            single = part.get("single", []) if part.get("type") == "TemplateProcessing" else []
            ids = [part["special_tokens"][s["SpecialToken"]["id"]]["ids"] for s in single if "SpecialToken" in s]
            if not single or "Sequence" not in single[-1] or len(single) > 2 or any(len(i) != 1 for i in ids):
                self.unsupported.append(f"post-processor {_brief(part)}")
            elif ids:
                bos = int(ids[0][0])
        return bos

    def _is_bpe(self) -> bool:
        return self.model.get("type", "BPE") == "BPE" and "merges" in self.model

    def _expect(self, component: str, others: list[dict[str, Any]]) -> None:
        self.unsupported += [f"{component} {_brief(part)}" for part in others]

    def _byte_step(self, part: dict[str, Any]) -> str | None:
        """Name of the step, "" when the part needs none, None when it is not known."""
        kind = part.get("type")
        if kind == "ByteLevel" and not part.get("add_prefix_space"):
            return "gpt2" if part.get("use_regex", True) else ""
        if kind == "Digits":
            return "digits" if part.get("individual_digits") else "digit_runs"
        if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
            return _STEPS.get(part.get("pattern", {}).get("Regex", ""))
        return None

    def _fields(self, model: str, normalizer: str, prefix: str, *, strip: bool) -> dict[str, object]:
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if self.model.get(name):
                self.unsupported.append(f"model.{name} = {self.model[name]!r}")
        unk = self.model.get("unk_token")
        return {
            "model": model,
            "normalizer": normalizer,
            "space_prefix": prefix,
            "strip_leading_space": strip,
            "byte_fallback": bool(self.model.get("byte_fallback")),
            "fuse_unk": bool(self.model.get("fuse_unk")),
            "ignore_merges": bool(self.model.get("ignore_merges")),
            "unk_id": None if unk is None else self.ids.get(unk),
        }

    def _added_kind(self, token: dict[str, Any], prefix: str) -> int:
        text = token["content"]
        if token.get("single_word"):
            self.unsupported.append(f"added token {text!r} with single_word")
        kind = SPECIAL if token.get("special") else USER_DEFINED
        kind |= TAKES_SPACE_BEFORE if token.get("lstrip") else 0
        kind |= TAKES_SPACE_AFTER if token.get("rstrip") else 0
        if token.get("normalized"):
            changes = unicodedata.normalize("NFC", text) != text if self.bytewise else " " in text or SPACE_MARK in text
            if changes:
                self.unsupported.append(f"added token {text!r}, which the normalizer changes")
            kind |= NORMALIZED if _parts(self.source, "normalizer") or prefix != "none" else 0
        return kind

    def _merges(self, vocab: dict[str, int]) -> list[tuple[int, int, int, int]]:
        merges: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        missing = 0
        for rank, merge in enumerate(self.model["merges"]):
            left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
            try:
                pair = (vocab[left], vocab[right])
                merges[pair] = (*pair, rank, vocab[left + right])
            except KeyError:
                missing += 1
        if missing:
            self.unsupported.append(f"{missing} merges of tokens that are not in the vocabulary")
        return list(merges.values())
