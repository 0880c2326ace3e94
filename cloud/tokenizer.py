"""The tokenizer on its way into the artifact: a Hugging Face directory or a GGUF file becomes SPEC.md section 7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgesdk.cloud.chat_template import compile_chat
from edgesdk.cloud.checkpoint import TokenizerFiles
from edgesdk.cloud.tokenizer_gguf import read_tokenizer_gguf
from edgesdk.cloud.tokenizer_json import read_tokenizer_json
from edgesdk.cloud.tokenizer_tables import (
    BYTE,
    KIND_MASK,
    NORMALIZED,
    PATTERNS,
    SPACE_MARK,
    SPECIAL,
    TAKES_SPACE_AFTER,
    TAKES_SPACE_BEFORE,
    USER_DEFINED,
    byte_alphabet,
    tables,
)
from edgesdk.cloud.untrusted import malformed
from edgesdk.errors import ModelError

__all__ = ["ArtifactTokenizer", "import_tokenizer", "to_tokenizers"]


@dataclass(frozen=True)
class ArtifactTokenizer:
    """A tokenizer as the artifact holds it.

    header: the field `tokenizer`; tensors: the arrays `tokenizer.*` and, when there is a template, `chat_template`
    """

    header: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]] = field(repr=False)

    @property
    def n_tokens(self) -> int:
        """Tokens of the tokenizer, at most the rows of the embedding."""
        return int(self.header["n_tokens"])

    @property
    def chat_template(self) -> str | None:
        """Jinja source."""
        template = self.tensors.get("chat_template")
        return None if template is None else template.tobytes().decode()

    def token_bytes(self, token: int) -> bytes:
        """What a token stands for; the text of special tokens."""
        begin, end = (int(i) for i in self.tensors["tokenizer.offsets"][token : token + 2])
        return self.tensors["tokenizer.bytes"][begin:end].tobytes()


def import_tokenizer(source: TokenizerFiles | Path, *, chat_template: str | None = None) -> ArtifactTokenizer:
    """The tokenizer of a checkpoint: its files, a GGUF file, a tokenizer.json or the directory that holds one.

    chat_template: Jinja source; a GGUF file's own one when None.
    Raises ModelError, which names all unsupported parts, when ids would differ from those of the source.
    """
    files = _files(source) if isinstance(source, Path) else source
    with malformed(f"the tokenizer of {files.gguf or files.tokenizer_json}"):
        return _imported(files, chat_template)


def _imported(files: TokenizerFiles, chat_template: str | None) -> ArtifactTokenizer:
    if files.gguf is not None:
        vocabulary, own_template = read_tokenizer_gguf(files.gguf)
        chat_template = own_template if chat_template is None else chat_template
    elif files.tokenizer_json is not None:
        vocabulary = read_tokenizer_json(files.tokenizer_json, files.tokenizer_config, files.generation_config)
    else:
        raise ModelError(
            "the model has no tokenizer.json",
            hint="save it with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...)",
        )
    header = vocabulary.fields | {"n_tokens": len(vocabulary.tokens), "n_merges": len(vocabulary.merges), "chat": None}
    imported = ArtifactTokenizer(header, tables(vocabulary))
    if chat_template is None:
        return imported
    bos = _text(imported, header["bos_id"])
    eos = _text(imported, next(iter(imported.header["eos_ids"]), None))
    template = np.frombuffer(chat_template.encode(), np.uint8)
    return replace(
        imported,
        header={**header, "chat": compile_chat(chat_template, bos, eos)},
        tensors={**imported.tensors, "chat_template": template},
    )


def to_tokenizers(tokenizer: ArtifactTokenizer) -> Tokenizer:
    """The same tokenizer in the Hugging Face library, for the compiler's own work and for comparison.

    Ranks that merges share (scores of SentencePiece in a GGUF file) get an order here that the library then keeps.
    """
    header, kinds = tokenizer.header, tokenizer.tensors["tokenizer.kinds"]
    bytewise = header["model"] == "byte_bpe"
    letters = {byte: letter for letter, byte in byte_alphabet().items()} if bytewise else {}
    texts = [_vocabulary_text(tokenizer, i, letters) for i in range(tokenizer.n_tokens)]
    vocab = {text: i for i, text in enumerate(texts) if text}
    rows = tokenizer.tensors["tokenizer.merges"]
    rows = rows[np.argsort(rows[:, 2], kind="stable")] if len(rows) else rows
    unk = header["unk_id"]
    result = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[(texts[left], texts[right]) for left, right, _, _ in rows.tolist()],
            unk_token=None if unk is None else texts[unk],
            fuse_unk=header["fuse_unk"],
            byte_fallback=header["byte_fallback"],
            ignore_merges=header["ignore_merges"],
        )
    )
    (_set_byte_level if bytewise else _set_sentencepiece)(result, header)
    added = [i for i in range(tokenizer.n_tokens) if kinds[i] & KIND_MASK in (SPECIAL, USER_DEFINED)]
    result.add_tokens([_added_token(texts[i], int(kinds[i])) for i in added])
    if header["add_bos"]:
        bos = texts[header["bos_id"]]
        result.post_processor = processors.TemplateProcessing(f"{bos} $A", None, [(bos, header["bos_id"])])
    return result


def _files(path: Path) -> TokenizerFiles:
    if path.suffix == ".gguf":
        return TokenizerFiles(gguf=path)
    folder = path if path.is_dir() else path.parent

    def existing(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    tokenizer_json = existing("tokenizer.json") if path.is_dir() else path
    return TokenizerFiles(None, tokenizer_json, existing("tokenizer_config.json"), existing("generation_config.json"))


def _text(tokenizer: ArtifactTokenizer, token: object) -> str:
    return tokenizer.token_bytes(token).decode(errors="replace") if isinstance(token, int) else ""


def _vocabulary_text(tokenizer: ArtifactTokenizer, token: int, letters: Mapping[int, str]) -> str:
    """The token as tokenizer.json writes it, "" for ids without one. letters: by byte, in a byte-level vocabulary."""
    kind = int(tokenizer.tensors["tokenizer.kinds"][token]) & KIND_MASK
    value = tokenizer.token_bytes(token)
    if kind == BYTE:
        return f"<0x{value[0]:02X}>"
    if kind in (SPECIAL, USER_DEFINED) or not letters:
        return value.decode()
    return "".join(letters[byte] for byte in value)


def _added_token(text: str, kind: int) -> AddedToken:
    return AddedToken(
        text,
        special=kind & KIND_MASK == SPECIAL,
        lstrip=bool(kind & TAKES_SPACE_BEFORE),
        rstrip=bool(kind & TAKES_SPACE_AFTER),
        normalized=bool(kind & NORMALIZED),
    )


def _set_byte_level(result: Tokenizer, header: Mapping[str, Any]) -> None:
    steps: list[Any] = []
    for step in header["pre_tokenizer"]:
        if step in PATTERNS:
            steps.append(pre_tokenizers.Split(Regex(PATTERNS[step]), "isolated"))
        else:
            steps.append(pre_tokenizers.Digits(individual_digits=step == "digits"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    result.pre_tokenizer = pre_tokenizers.Sequence(steps)
    result.decoder = decoders.ByteLevel()
    if header["normalizer"] == "nfc":
        result.normalizer = normalizers.NFC()


def _set_sentencepiece(result: Tokenizer, header: Mapping[str, Any]) -> None:
    prefix = header["space_prefix"]
    mark = normalizers.Replace(" ", SPACE_MARK)
    if prefix == "piece":
        result.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE_MARK), mark])
    elif prefix == "none" and "words" not in header["pre_tokenizer"]:
        result.normalizer = mark
    else:
        scheme = {"each": "always", "first": "first", "none": "never"}[prefix]
        split = "words" in header["pre_tokenizer"]
        result.pre_tokenizer = pre_tokenizers.Metaspace(SPACE_MARK, prepend_scheme=scheme, split=split)
    steps: list[Any] = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if header["strip_leading_space"]:
        steps.append(decoders.Strip(" ", 1, 0))
    result.decoder = decoders.Sequence(steps)
