"""Small checkpoints that need no other library to write: as GGUF, as safetensors, and their JSON."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from edgesdk.cloud.tokenizer_tables import PATTERNS, byte_alphabet

__all__ = [
    "BYTE_LEVEL",
    "CONFIG",
    "METASPACE",
    "TEMPLATE",
    "TOKENIZER_CONFIG",
    "WIDTH",
    "D",
    "N",
    "gguf_parts",
    "safetensors_parts",
    "write_gguf",
    "write_safetensors",
]

TEMPLATE = "{{ messages | length }}"  # compiling one that is plain strings takes longest of all
D, HEADS, KV_HEADS, WIDTH = 32, 4, 2, 32
LETTERS = [*byte_alphabet(), "ab", "</s>"]
N = len(LETTERS)
MERGES = ["a b"]
U32, F32, STRING, ARRAY = 4, 6, 8, 9


def gguf_parts(model: str) -> dict[str, Any]:
    """A whole file as lists that can be damaged: keys with type and value, tensors with shape, type and offset."""
    arch = "llama"
    sizes = {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": D,
        "feed_forward_length": WIDTH,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
    }
    pieces = LETTERS
    if model == "llama":
        pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        pieces += ["a", "b", "ab"][: N - len(pieces)] + [f"t{i}" for i in range(N - len(pieces) - 3)]
    kinds = {"<unk>": 2, "</s>": 3}
    keys: list[list[Any]] = [
        ["general.architecture", STRING, arch],
        *([f"{arch}.{name}", U32, size] for name, size in sizes.items()),
        [f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5],
        ["tokenizer.ggml.model", STRING, model],
        ["tokenizer.ggml.tokens", ARRAY, [STRING, pieces]],
        ["tokenizer.ggml.token_type", ARRAY, [U32, [kinds.get(p, 6 if p.startswith("<0x") else 1) for p in pieces]]],
        ["tokenizer.ggml.scores", ARRAY, [F32, [-float(i) for i in range(len(pieces))]]],
        ["tokenizer.ggml.merges", ARRAY, [STRING, MERGES]],
        ["tokenizer.ggml.eos_token_id", U32, pieces.index("</s>")],
        ["tokenizer.chat_template", STRING, TEMPLATE],
    ]
    shapes = {
        "token_embd.weight": [D, N],
        "output_norm.weight": [D],
        "blk.0.attn_norm.weight": [D],
        "blk.0.attn_q.weight": [D, D],
        "blk.0.attn_k.weight": [D, D // 2],
        "blk.0.attn_v.weight": [D, D // 2],
        "blk.0.attn_output.weight": [D, D],
        "blk.0.ffn_norm.weight": [D],
        "blk.0.ffn_gate.weight": [D, WIDTH],
        "blk.0.ffn_up.weight": [D, WIDTH],
        "blk.0.ffn_down.weight": [WIDTH, D],
    }
    tensors: list[list[Any]] = []
    offset = 0
    for name, shape in shapes.items():
        tensors.append([name, shape, 0, offset])
        offset += -(-math.prod(shape) * 4 // 32) * 32
    return {"version": 3, "n_tensors": len(tensors), "n_keys": len(keys), "keys": keys, "tensors": tensors}


def write_gguf(parts: Any, n_data_bytes: int) -> bytes:
    """Writes what can be written of parts that may be damaged; numbers are cut to their types."""

    def number(value: Any, n_bytes: int) -> bytes:
        return (int(value) % (1 << 8 * n_bytes) if isinstance(value, int) else 0).to_bytes(n_bytes, "little")

    def text(value: Any) -> bytes:
        encoded = value.encode(errors="surrogatepass") if isinstance(value, str) else b""
        return number(len(encoded), 8) + encoded

    def item(kind: Any, value: Any) -> bytes:
        if kind == STRING:
            return text(value)
        if kind == F32:
            real = float(value) if isinstance(value, float) else 0.0
            return struct.pack("<f", real if abs(real) < 1e38 else math.inf)
        if kind == ARRAY and isinstance(value, list) and len(value) == 2 and isinstance(value[1], list):
            return number(value[0], 4) + number(len(value[1]), 8) + b"".join(item(value[0], v) for v in value[1])
        return number(value, {0: 1, 1: 1, 2: 2, 3: 2, 7: 1}.get(kind if isinstance(kind, int) else 4, 4))

    def rows(name: str, n: int) -> list[list[Any]]:
        found = parts.get(name) if isinstance(parts, dict) else None
        return [row for row in found if isinstance(row, list) and len(row) == n] if isinstance(found, list) else []

    def head(name: str, n_bytes: int) -> bytes:
        return number(parts.get(name) if isinstance(parts, dict) else 0, n_bytes)

    out = b"GGUF" + head("version", 4) + head("n_tensors", 8) + head("n_keys", 8)
    for key, kind, value in rows("keys", 3):
        out += text(key) + number(kind, 4) + item(kind, value)
    for name, shape, kind, offset in rows("tensors", 4):
        sizes = shape if isinstance(shape, list) else []
        out += text(name) + number(len(sizes), 4) + b"".join(number(size, 8) for size in sizes)
        out += number(kind, 4) + number(offset, 8)
    return out + b"\0" * (-len(out) % 32) + np.random.default_rng(0).bytes(n_data_bytes)


CONFIG = {
    "model_type": "llama",
    "hidden_size": D,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": N,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
BYTE_LEVEL = {
    "added_tokens": [{"id": N - 1, "content": "</s>", **_ADDED}],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERNS["qwen2"]}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ],
    },
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [N - 1], "tokens": ["</s>"]}},
    },
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {text: i for i, text in enumerate(LETTERS)}, "merges": MERGES},
}
METASPACE = {
    "added_tokens": [{"id": 1, "content": "</s>", **_ADDED}],
    "normalizer": None,
    "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
    "decoder": {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ],
    },
    "model": {
        "type": "BPE",
        "byte_fallback": True,
        "unk_token": "<unk>",
        "vocab": {
            "<unk>": 0,
            "</s>": 1,
            **{f"<0x{byte:02X}>": 2 + byte for byte in range(256)},
            "a": 258,
            "b": 259,
            "ab": 260,
        },
        "merges": [["a", "b"]],
    },
}
TOKENIZER_CONFIG = {"bos_token": "</s>", "eos_token": {"content": "</s>"}, "chat_template": TEMPLATE}


def safetensors_parts() -> tuple[dict[str, Any], bytes]:
    """The header of a file that fits CONFIG, and its data."""
    layer = "model.layers.0."
    shapes = {
        "model.embed_tokens.weight": [N, D],
        "model.norm.weight": [D],
        f"{layer}input_layernorm.weight": [D],
        f"{layer}post_attention_layernorm.weight": [D],
        **{f"{layer}self_attn.{role}_proj.weight": [D, D] for role in "qo"},
        **{f"{layer}self_attn.{role}_proj.weight": [D // 2, D] for role in "kv"},
        **{f"{layer}mlp.{role}_proj.weight": [WIDTH, D] for role in ("gate", "up", "down")},
    }
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    return header, np.random.default_rng(0).bytes(offset)


def write_safetensors(path: Path, header: Any, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
