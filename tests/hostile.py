"""Hostile artifacts: one or more for every rule of SPEC.md, made from a good file by one change each.

EXCEPTIONS says which rules no file can break, and why; tests/formats/test_rules.py compares the two with SPEC.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "CASES",
    "CHAT_CASES",
    "DATA_CASES",
    "EXCEPTIONS",
    "SSM_CASES",
    "TOKENIZER_CASES",
    "Header",
    "Hostile",
    "join",
    "split",
]

Header = dict[str, Any]


@dataclass(frozen=True)
class Hostile:
    """`change` edits the outer header and the `edge` metadata in place; `raw` edits the file's bytes instead."""

    name: str
    rule: str
    change: Callable[[Header, Header], None] | None = None
    raw: Callable[[bytes], bytes] | None = None

    def make(self, good: bytes) -> bytes:
        """The hostile file."""
        if self.raw is not None:
            return self.raw(good)
        outer, edge, data = split(good)
        if self.change is not None:
            self.change(outer, edge)
        return join(outer, edge, data)


def split(file: bytes) -> tuple[Header, Header, bytes]:
    """Outer header, `edge` metadata, data."""
    n = int.from_bytes(file[:8], "little")
    outer = json.loads(file[8 : 8 + n])
    return outer, json.loads(outer["__metadata__"]["edge"]), file[8 + n :]


def join(outer: Header, edge: Header | None, data: bytes) -> bytes:
    """A file with these parts, its header padded to whole pages."""
    if edge is not None:
        outer["__metadata__"]["edge"] = json.dumps(edge, separators=(",", ":"))
    text = json.dumps(outer, separators=(",", ":")).encode()  # as long as the writer's, so that pages stay the same
    text += b" " * (-(8 + len(text)) % 4096)
    return len(text).to_bytes(8, "little") + text + data


def _edge(*path: Any, value: Any) -> Callable[[Header, Header], None]:
    """Sets one field of the `edge` metadata."""

    def change(_: Header, edge: Header) -> None:
        place: Any = edge
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def _grow(path: tuple[Any, ...], amount: int) -> Callable[[Header, Header], None]:
    def change(_: Header, edge: Header) -> None:
        place: Any = edge
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] += amount

    return change


def _tensor(name: str, field: str, value: Any) -> Callable[[Header, Header], None]:
    def change(outer: Header, _: Header) -> None:
        outer[name][field] = value

    return change


def _remove(*path: Any) -> Callable[[Header, Header], None]:
    def change(_: Header, edge: Header) -> None:
        place: Any = edge
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def _second(path: tuple[Any, ...], **fields: Any) -> Callable[[Header, Header], None]:
    """Makes the file one of format 2, with these fields at `path`."""

    def change(_: Header, edge: Header) -> None:
        edge["format_version"] = "2.0"
        place: Any = edge
        for key in path:
            place = place[key]
        place.update(fields)

    return change


def _rename(outer: Header, _: Header) -> None:
    outer["blk.0.mlp.norm/1"] = outer.pop("blk.0.mlp.norm/0")


def _swap_codebook(_: Header, edge: Header) -> None:
    edge["codebooks"][0] = edge["codebooks"][0][::-1]


def _two_bits(_: Header, edge: Header) -> None:
    edge["panels"]["blk.0.attn.q/0"][4::2] = [2, len(edge["codebooks"])]
    edge["codebooks"].append([-24, -8, 8, 24])


def _eight_bits(_: Header, edge: Header) -> None:
    edge["panels"]["blk.0.attn.q/0"][4::2] = [8, -1]


def _narrow_embedding(outer: Header, edge: Header) -> None:
    """A panel of 2 bits that is right in itself; the bytes behind it become padding."""
    rows, columns, group = (edge["panels"]["embed/0"][i] for i in (1, 3, 5))
    edge["codebooks"].append([-9, -3, 2, 8])
    edge["panels"]["embed/0"][4:] = [2, group, len(edge["codebooks"]) - 1]
    size = -(-rows // 16) * (columns * 4 + columns // group * 32)
    begin, end = outer["embed/0"]["data_offsets"]
    outer["embed/0"] = {"dtype": "U8", "shape": [size], "data_offsets": [begin, begin + size]}
    outer["pad.9999"] = {"dtype": "U8", "shape": [end - begin - size], "data_offsets": [begin + size, end]}


def _hidden(name: str) -> Callable[[Header, Header], None]:
    """Renames a tensor, so that it is missing where it is looked for."""

    def change(outer: Header, _: Header) -> None:
        outer[f"other/{name.rpartition('/')[2]}"] = outer.pop(name)

    return change


def _wide_dt(outer: Header, _: Header) -> None:
    tensor = outer["blk.0.ssm.dt/0"]
    tensor["dtype"], tensor["shape"] = "F32", [tensor["shape"][0] // 2]


def _gap(outer: Header, _: Header) -> None:
    name = next(name for name in outer if name.startswith("pad."))
    del outer[name]


def _unaligned(outer: Header, _: Header) -> None:
    """Padding that begins between two lines becomes a tensor."""
    name = next(n for n, t in outer.items() if n.startswith("pad.") and t["data_offsets"][0] % 64)
    outer["other/0"] = outer.pop(name)


def _float_padding(outer: Header, _: Header) -> None:
    name = next(n for n, t in outer.items() if n.startswith("pad.") and t["shape"][0] % 4 == 0)
    outer[name] |= {"dtype": "F32", "shape": [outer[name]["shape"][0] // 4]}


def _wide_bias(outer: Header, _: Header) -> None:
    tensor = outer["blk.0.attn.bias/0"]
    tensor["dtype"], tensor["shape"] = "F32", [tensor["shape"][0] // 2]


def _groups_of_40(*pieces: str) -> Callable[[Header, Header], None]:
    """Of query panels: their 64 columns have two groups of 40, or of 32 as before; no byte differs."""

    def change(_: Header, edge: Header) -> None:
        for piece in pieces:
            edge["panels"][f"blk.0.attn.q/{piece}"][5] = 40

    return change


def _shifted_rows(_: Header, edge: Header) -> None:
    box = edge["panels"]["blk.0.attn.q/1"]
    box[:2] = box[0] + 16, box[1] + 16


def _many_levels(_: Header, edge: Header) -> None:
    edge["levels"] = edge["levels"][:1] * 1001


def _utf16(good: bytes) -> bytes:
    outer, edge, data = split(good)
    outer["__metadata__"]["edge"] = json.dumps(edge)
    text = json.dumps(outer).encode("utf-16-le")
    text += " ".encode("utf-16-le") * (-(8 + len(text)) % 4096 // 2)
    return len(text).to_bytes(8, "little") + text + data


def _cut_below_level_0(good: bytes) -> bytes:
    _, edge, _ = split(good)
    return good[: edge["levels"][0]["file_bytes"] - 1]


def _bytes(name: str, dtype: str, index: int, value: float, *, rehash: bool = True) -> Callable[[bytes], bytes]:
    """Changes one entry of the first tensor whose name begins so, and the hash of its run: only the entry is wrong."""

    def change(good: bytes) -> bytes:
        outer, edge, data = split(good)
        begin, end = next(t["data_offsets"] for n, t in outer.items() if n.startswith(name))
        table = np.frombuffer(data[begin:end], dtype).copy()
        table[index] = value
        data = data[:begin] + table.tobytes() + data[end:]
        for run in edge["runs"] if rehash else []:
            run["sha256"] = hashlib.sha256(data[run["begin"] : run["end"]]).hexdigest()
        return join(outer, edge, data)

    return change


def _equal_tokens(good: bytes) -> bytes:
    """65 tokens are the letter a."""
    outer, edge, data = split(good)
    tables = {name: outer[f"tokenizer.{name}/0"]["data_offsets"] for name in ("bytes", "offsets", "sorted")}
    begin, end = tables["bytes"]
    text = b"a" * 65 + bytes(end - begin - 65)
    offsets = np.minimum(np.arange(301), 65).astype("<u4")
    offsets[-1] = end - begin
    order = sorted(range(300), key=lambda i: text[offsets[i] : offsets[i + 1]])
    new = {"bytes": text, "offsets": offsets.tobytes(), "sorted": np.array(order, "<u4").tobytes()}
    for name, content in new.items():
        begin, end = tables[name]
        data = data[:begin] + content + data[end:]
    for run in edge["runs"]:
        run["sha256"] = hashlib.sha256(data[run["begin"] : run["end"]]).hexdigest()
    return join(outer, edge, data)


def _table(name: str, dtype: str, index: int, value: int) -> Callable[[bytes], bytes]:
    return _bytes(f"tokenizer.{name}/0", dtype, index, value)


def _padded_panel(good: bytes) -> bytes:
    """Writes behind the codes and scales of a panel that does not fill its last 64 bytes."""
    outer, edge, _ = split(good)
    for name, (row, row_end, column, column_end, bits, group, _) in edge["panels"].items():
        tiles, columns = -(-(row_end - row) // 16), column_end - column
        size = tiles * (columns * bits * 2 + -(-columns // group) * 32)
        if size < outer[name]["shape"][0]:
            return _bytes(name, "u1", size, 1)(good)
    raise AssertionError("no panel of the file is padded")


def _chat(**changes: Any) -> Callable[[Header, Header], None]:
    def change(_: Header, edge: Header) -> None:
        for name, value in changes.items():
            edge["tokenizer"]["chat"][name] = value

    return change


def _without_edge(good: bytes) -> bytes:
    outer, _, data = split(good)
    outer["__metadata__"] = {"format": "pt"}
    return join(outer, None, data)


def _broken_edge(good: bytes) -> bytes:
    outer, _, data = split(good)
    outer["__metadata__"]["edge"] = "{"
    return join(outer, None, data)


_LONG = (1 << 62).to_bytes(8, "little")

CASES = (
    Hostile("empty", "1.1", raw=lambda _: b""),
    Hostile("three bytes", "1.1", raw=lambda good: good[:3]),
    Hostile("cut inside the header", "1.1", raw=lambda good: good[:2000]),
    Hostile("not json", "1.1", raw=lambda good: good[:8] + b"#" + good[9:]),
    Hostile("deep json", "1.1", raw=lambda good: (4088).to_bytes(8, "little") + b"[" * 4088 + good),
    Hostile("header of exabytes", "1.2", raw=lambda good: _LONG + good[8:]),
    Hostile("header not whole pages", "1.2", raw=lambda good: (4000).to_bytes(8, "little") + good[8:]),
    Hostile("unknown dtype", "1.3", _tensor("norm/0", "dtype", "F64")),
    Hostile("shape too large", "1.3", _tensor("norm/0", "shape", [1 << 40, 1 << 40])),
    Hostile("negative shape", "1.3", _tensor("norm/0", "shape", [-64])),
    Hostile("header in UTF-16", "1.1", raw=_utf16),
    Hostile("nine dimensions", "1.3", _tensor("norm/0", "shape", [1] * 8 + [64])),
    Hostile("offsets backwards", "1.3", _tensor("norm/0", "data_offsets", [64, 0])),
    Hostile("hole between tensors", "1.4", _gap),
    Hostile("padding of floats", "1.4", _float_padding),
    Hostile("tensor between two lines", "1.5", _unaligned),
    Hostile("no edge metadata", "1.6", raw=_without_edge),
    Hostile("edge not json", "1.6", raw=_broken_edge),
    Hostile("deep metadata", "1.6", lambda _, edge: edge["levels"][0].update(gave_up=json.loads("[" * 40 + "]" * 40))),
    Hostile("no number", "1.6", _edge("levels", 0, "perplexity", value=float("nan"))),
    Hostile("half of a surrogate pair", "1.6", _edge("model", "name", value="\ud800")),
    Hostile("version in other digits", "1.7", _edge("format_version", value="\u00b2.0")),
    Hostile("version without a minor", "1.7", _edge("format_version", value="1")),
    Hostile("no version", "1.7", lambda outer, edge: edge.clear()),
    Hostile("next major version", "1.7", _edge("format_version", value="3.0")),
    Hostile("version not a string", "1.7", _edge("format_version", value=1)),
    Hostile("no blocks", "3", _edge("model", "blocks", value=[])),
    Hostile("kind that is a list", "3", _edge("model", "blocks", 0, "kind", value=["attention"])),
    Hostile("two blocks of one name", "3", _edge("model", "blocks", 1, "name", value="blk.0.attn")),
    Hostile("frequencies too short", "3", _hidden("blk.0.attn.inv_freq/1")),
    Hostile("bias in other floats", "3", _wide_bias),
    Hostile("epsilon beyond floats", "3", _edge("model", "norm_eps", value=10**400)),
    Hostile("unknown kind", "3", _edge("model", "blocks", 0, "kind", value="convolution")),
    Hostile("silu without a gate", "3", _edge("model", "blocks", 1, "gated", value=False)),
    Hostile("relu2 with a gate", "3", _edge("model", "blocks", 1, "activation", value="relu2")),
    Hostile("gated no boolean", "3", _edge("model", "blocks", 1, "gated", value=1)),
    Hostile("no width", "3", _edge("model", "d_model", value=0)),
    Hostile("odd width", "3", _edge("model", "d_model", value=65)),
    Hostile("heads do not divide", "3", _edge("model", "blocks", 0, "n_kv_heads", value=4)),
    Hostile("huge heads", "4.2", _edge("model", "blocks", 0, "n_heads", value=1 << 50)),
    Hostile("a window in format 1", "1.7", _edge("model", "blocks", 0, "window", value=8)),
    Hostile("capped logits in format 1", "1.7", _edge("model", "logit_softcap", value=30.0)),
    Hostile("another activation in format 1", "1.7", _edge("model", "blocks", 1, "activation", value="gelu_tanh")),
    Hostile("unknown activation", "3", _edge("model", "blocks", 1, "activation", value="relu")),
    Hostile("unknown field of a block in format 2", "1.7", _second(("model", "blocks", 0), mystery=1)),
    Hostile("unknown field of the model in format 2", "1.7", _second(("model",), mystery=1)),
    Hostile("window of nothing", "3", _second(("model", "blocks", 0), window=0)),
    Hostile("huge window", "3", _second(("model", "blocks", 0), window=1 << 40)),
    Hostile("window of a half", "3", _second(("model", "blocks", 0), window=0.5)),
    Hostile("cap of nothing", "3", _second(("model", "blocks", 0), softcap=0)),
    Hostile("cap as text", "3", _second(("model", "blocks", 0), softcap="50")),
    Hostile("negative cap of logits", "3", _second(("model",), logit_softcap=-30.0)),
    Hostile("post norm without a tensor", "3", _second(("model", "blocks", 1), post_norm=True)),
    Hostile("post norm that is a number", "3", _second(("model", "blocks", 0), post_norm=1)),
    Hostile("normed heads of several quanta", "3", _second(("model", "blocks", 0), qk_norm=True)),
    Hostile("epsilon not a number", "3", _edge("model", "norm_eps", value="small")),
    Hostile("five bits", "4", _edge("panels", "blk.0.attn.q/0", 4, value=5)),
    Hostile("no bits", "4", _edge("panels", "blk.0.attn.q/0", 4, value=0)),
    Hostile("three bits with a codebook of sixteen", "4", _edge("panels", "blk.0.attn.q/0", 4, value=3)),
    Hostile("two bits in the bytes of four", "4.3", _two_bits),
    Hostile("six bits with a codebook", "4", _edge("panels", "blk.0.attn.q/0", 4, value=6)),
    Hostile("four bits without a codebook", "4", _edge("panels", "blk.0.attn.q/0", 6, value=-1)),
    Hostile("eight bits in the bytes of four", "4.3", _eight_bits),
    Hostile("embedding of two bits", "3", _narrow_embedding),
    Hostile("codebook of five values", "4", _edge("codebooks", 0, value=[-2, -1, 0, 1, 2])),
    Hostile("codebook beyond six bits", "4", _edge("codebooks", 0, 15, value=32)),
    Hostile("codebook below six bits", "4", _edge("codebooks", 0, 0, value=-33)),
    Hostile("group of 12", "4", _edge("panels", "blk.0.attn.q/0", 5, value=12)),
    Hostile("rows backwards", "4", _edge("panels", "blk.0.attn.q/0", 0, value=4096)),
    Hostile("missing codebook", "4", _edge("panels", "blk.0.attn.q/0", 6, value=99)),
    Hostile("descending codebook", "4", _swap_codebook),
    Hostile("panel of another shape", "4", _grow(("panels", "blk.0.attn.q/0", 1), 16)),
    Hostile("panel missing", "4", _remove("panels", "blk.0.attn.q/0")),
    Hostile("vocabulary too large", "3", _grow(("model", "vocab_size"), 16)),
    Hostile("columns of half a unit", "4.1", _edge("panels", "blk.0.attn.q/0", 3, value=60)),
    Hostile("no rows", "4.1", _edge("panels", "blk.0.attn.q/0", 1, value=0)),
    Hostile("pieces with different groups", "4.1", _groups_of_40("0")),
    Hostile("weights with different groups", "4.1", _groups_of_40("0", "1", "2")),
    Hostile("rows left out", "4.2", _shifted_rows),
    Hostile("perplexity as text", "6.4", _edge("levels", 0, "perplexity", value="low")),
    Hostile("no runs", "5", _edge("runs", value=[])),
    Hostile("run not page-aligned", "5.1", _grow(("runs", 0, "end"), 64)),
    Hostile("run too long", "5.1", _grow(("runs", -1, "end"), 4096)),
    Hostile("run of unknown level", "5.1", _edge("runs", -1, "last_level", value=99)),
    Hostile("tensor in another level's run", "5.3", _rename),
    Hostile("hash in capitals", "5.4", _edge("runs", 0, "sha256", value="A" * 64)),
    Hostile("hash too short", "5.4", _edge("runs", 0, "sha256", value="00")),
    Hostile("allocation of another model", "6.1", _edge("levels", 0, "allocation", value=[])),
    Hostile("allocation off the quantum", "6.1", _edge("levels", 0, "allocation", 0, value=[13, 13])),
    Hostile("allocation shrinks", "6.1", _edge("levels", 1, "allocation", 0, value=[8, 8])),
    Hostile("mapped bytes wrong", "6.2", _grow(("levels", 0, "mapped_bytes"), 4096)),
    Hostile("file bytes wrong", "6.2", _grow(("levels", 0, "file_bytes"), -4096)),
    Hostile("rates ascend", "6.3", _edge("levels", 0, "rate", value=0.0)),
    Hostile("top rate not 0", "6.3", _edge("levels", -1, "rate", value=0.01)),
    Hostile("block bytes wrong", "6.3", _grow(("levels", 0, "block_bytes"), 1)),
    Hostile("rate that the bytes do not give", "6.3", _grow(("levels", 0, "rate"), 0.01)),
    Hostile("cut below the smallest level", "6.5", raw=_cut_below_level_0),
    Hostile("more levels than any ladder", "6", _many_levels),
    Hostile("no levels", "6", _edge("levels", value=[])),
)

# Bytes of the data with a sound header: `verify_artifact` reads them all and refuses them. The engine, which does not
# before it computes, refuses those whose hash is wrong; the others may say anything, and do no more than that.
# Made from a model 96 wide, which has panels that need padding.
DATA_CASES = (
    Hostile("bytes in padding", "1.4", raw=_bytes("pad.", "u1", 0, 1)),
    Hostile("infinite scale", "4.3", raw=_bytes("blk.0.attn.q/0", "<f2", -1, float("inf"))),
    Hostile("scale that is no number", "4.3", raw=_bytes("blk.0.mlp.up/0", "<f2", -1, float("nan"))),
    Hostile("bytes behind a panel", "4.3", raw=_padded_panel),
    Hostile("code of -128", "4.5", raw=_bytes("embed/0", "u1", 5, 0x80)),
    Hostile("bytes of another hash", "5.4", raw=_bytes("blk.0.attn.q/0", "u1", 5, 0x11, rehash=False)),
)

# Of `tokenizer.chat`, which edge-run reads: made from a file that has it.
CHAT_CASES = (
    Hostile("a list of roles", "7", _edge("tokenizer", "chat", value=["user"])),
    Hostile("no user", "7", _remove("tokenizer", "chat", "user")),
    Hostile("a user of one string", "7", _chat(user="[user]")),
    Hostile("a user of three strings", "7", _chat(user=["a", "b", "c"])),
    Hostile("numbers around an answer", "7", _chat(assistant=[1, 2])),
    Hostile("no prompt", "7", _remove("tokenizer", "chat", "generation_prompt")),
    Hostile("a system of nothing", "7", _chat(system=[])),
    Hostile("roles that are trimmed as text", "7", _chat(trim="user")),
)

EXCEPTIONS = {
    "2": "says what words mean",
    "4.4": "says where codes stand in a panel: any bytes are codes",
    "5.2": "says what a level uses; other sizes break 6.2, missing tensors 3 and 4.2",
    "8": "fields for people, but for the version (1.7)",
    **dict.fromkeys(("9.1", "9.2", "9.3", "9.4", "9.5"), "says what a block computes, of fields of section 3"),
}
"""Rules of SPEC.md that no file can break."""

# Of section 7, which the engine checks: the NumPy reader does not read text.
TOKENIZER_CASES = (
    Hostile("no tokenizer", "7", _remove("tokenizer")),
    Hostile("unknown tokenizer", "7", _edge("tokenizer", "model", value="unigram")),
    Hostile("no tokens", "7", _edge("tokenizer", "n_tokens", value=0)),
    Hostile("more tokens than tables", "7", _grow(("tokenizer", "n_tokens"), 1)),
    Hostile("more merges than tables", "7", _grow(("tokenizer", "n_merges"), 1)),
    Hostile("exabytes of tokens", "7", _edge("tokenizer", "n_tokens", value=1 << 60)),
    Hostile("first token beyond the last", "7", _edge("tokenizer", "bos_id", value=300)),
    Hostile("end token below the first", "7", _edge("tokenizer", "eos_ids", value=[-1])),
    Hostile("many end tokens", "7", _edge("tokenizer", "eos_ids", value=[1] * 65)),
    Hostile("a first token that is not there", "7", _second(("tokenizer",), add_bos=True, bos_id=None)),
    Hostile("unknown way to cut text", "7", _edge("tokenizer", "pre_tokenizer", value=["gpt5"])),
    Hostile("bytes without tokens", "7", _second(("tokenizer",), model="sentencepiece_bpe", byte_fallback=True)),
    Hostile("no offsets", "7", _hidden("tokenizer.offsets/0")),
    Hostile("offsets in bytes", "7", _tensor("tokenizer.offsets/0", "dtype", "F32")),
    Hostile("first offset not 0", "7", raw=_table("offsets", "<u4", 0, 1)),
    Hostile("offsets descend", "7", raw=_table("offsets", "<u4", 10, 1)),
    Hostile("offset beyond the bytes", "7", raw=_table("offsets", "<u4", 300, 1 << 31)),
    Hostile("sorted names no token", "7", raw=_table("sorted", "<u4", 5, 300)),
    Hostile("sorted names a token twice", "7", raw=_table("sorted", "<u4", 5, 0)),
    Hostile("tokens of the same bytes", "7", raw=_equal_tokens),
    Hostile("unknown kind", "7", raw=_table("kinds", "u1", 3, 7)),
    Hostile("unknown flag", "7", raw=_table("kinds", "u1", 3, 64)),
    Hostile("special token that is not UTF-8", "7", raw=_table("kinds", "u1", 200, 1)),
)

_MIXER = ("model", "blocks", 0)

# Made from a file whose blocks are mixers of kind ssm.
SSM_CASES = (
    Hostile("no heads", "3", _edge(*_MIXER, "n_heads", value=0)),
    Hostile("other heads", "4.2", _edge(*_MIXER, "n_heads", value=8)),
    Hostile("groups do not divide", "3", _edge(*_MIXER, "n_groups", value=3)),
    Hostile("no norm groups", "3", _edge(*_MIXER, "norm_groups", value=0)),
    Hostile("norm groups missing", "3", _remove(*_MIXER, "norm_groups")),
    Hostile("one tap", "3", _edge(*_MIXER, "conv_kernel", value=1)),
    Hostile("nine taps", "3", _edge(*_MIXER, "conv_kernel", value=9)),
    Hostile("other taps", "3", _edge(*_MIXER, "conv_kernel", value=3)),
    Hostile("limits backwards", "3", _edge(*_MIXER, "step_limits", value=[2, 1])),
    Hostile("limit below 0", "3", _edge(*_MIXER, "step_limits", value=[-1, 1])),
    Hostile("limits no numbers", "3", _edge(*_MIXER, "step_limits", value=["0", None])),
    Hostile("three limits", "3", _edge(*_MIXER, "step_limits", value=[0, 1, 2])),
    Hostile("state of odd steps", "3", _edge(*_MIXER, "axes", "state", value=[32, 12])),
    Hostile("huge state", "6.1", _edge(*_MIXER, "axes", "state", value=[1 << 24, 8])),
    Hostile("axis of attention", "3", _edge(*_MIXER, "axes", value={"qk": [32, 8], "vo": [32, 8]})),
    Hostile("bias of dt rows", "3", _edge(*_MIXER, "row_bias", value=["dt"])),
    Hostile("bias that is not there", "3", _edge(*_MIXER, "row_bias", value=["c"])),
    Hostile("no dt", "3", _hidden("blk.0.ssm.dt/0")),
    Hostile("dt in other floats", "3", _wide_dt),
    Hostile("no decay", "3", _hidden("blk.1.ssm.a/0")),
    Hostile("no convolution of b", "3", _hidden("blk.0.ssm.b.conv/1")),
    Hostile("gain too short", "3", _hidden("blk.0.ssm.gain/2")),
    Hostile("one axis dropped", "6.1", _edge("levels", 0, "allocation", 0, value=[0, 16])),
)
