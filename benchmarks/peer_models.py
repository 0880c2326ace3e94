"""The peer's files: the demo model as Q4_0, and a shape with random Q4_0 blocks, written with the gguf package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray
from shapes import demo_gguf

from edgesdk.cloud.families.rope import rope_frequencies

__all__ = ["write_demo_q4_0", "write_shape_gguf"]

_UNUSED_TOKEN = 5  # llama.cpp's token type
_PLAIN_FIELDS = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")


def write_demo_q4_0(path: Path) -> Path:
    """The demo model with its block weights as Q4_0, as llama-quantize makes them; the embedding stays Q8_0.

    Q8_0 is what the peer itself falls back to: the model's 576 columns are no multiple of 256.
    """
    reader = gguf.GGUFReader(demo_gguf())
    writer = _open(path, reader)
    for tensor in reader.tensors:
        if tensor.name.startswith("blk.") and tensor.name.endswith(".weight") and len(tensor.shape) == 2:
            values = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, Type.Q4_0), raw_dtype=Type.Q4_0)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    return _close(path, writer)


def write_shape_gguf(path: Path, config: Mapping[str, Any], seed: int = 0) -> Path:
    """A llama of this Hugging Face configuration with random Q4_0 blocks; its tokenizer is the demo model's, filled up.

    The embedding is Q6_K, which the peer's own conversion to Q4_0 takes for a tied one.
    """
    reader = gguf.GGUFReader(demo_gguf())
    writer = _open(path, reader, config)
    rng = np.random.default_rng(seed)
    d_model, width = config["hidden_size"], config["intermediate_size"]
    q_rows, kv_rows = (config[f"num_{n}_heads"] * config["head_dim"] for n in ("attention", "key_value"))
    matrices = {
        "attn_q": (q_rows, d_model),
        "attn_k": (kv_rows, d_model),
        "attn_v": (kv_rows, d_model),
        "attn_output": (d_model, q_rows),
        "ffn_gate": (width, d_model),
        "ffn_up": (width, d_model),
        "ffn_down": (d_model, width),
    }
    if config.get("rope_scaling"):
        writer.add_tensor("rope_freqs.weight", _rope_factors(config))
    _add_blocks(writer, rng, "token_embd.weight", (config["vocab_size"], d_model), Type.Q6_K)
    writer.add_tensor("output_norm.weight", np.ones(d_model, np.float32))
    for layer in range(config["num_hidden_layers"]):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(d_model, np.float32))
        for role, shape in matrices.items():
            _add_blocks(writer, rng, f"blk.{layer}.{role}.weight", shape, Type.Q4_0)
    return _close(path, writer)


def _open(path: Path, reader: Any, config: Mapping[str, Any] | None = None) -> Any:
    """A writer with the reader's tokenizer, and its other fields or those of `config`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path.with_name(path.name + ".partial"), "llama")
    for name, field in reader.fields.items():
        if name.startswith(_PLAIN_FIELDS) or (config and not name.startswith("tokenizer.")):
            continue
        value, kind = field.contents(), field.types[0]
        if config and name.endswith((".tokens", ".token_type")):
            n_more = config["vocab_size"] - len(value)
            is_text = name.endswith(".tokens")
            value += [f"<|unused_{i}|>" if is_text else _UNUSED_TOKEN for i in range(n_more)]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, kind, sub_type=element)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if config:
        _add_shape(writer, config)
    return writer


def _add_shape(writer: Any, config: Mapping[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _rope_factors(config: Mapping[str, Any]) -> NDArray[np.float32]:
    """(head_dim / 2,) divisors of the plain frequencies, as the peer's converter writes rotary scaling."""
    plain = rope_frequencies({"rope_theta": config["rope_theta"]}, config["head_dim"])[0]
    scaled = rope_frequencies(config, config["head_dim"])[0]
    return (np.array(plain) / np.array(scaled)).astype(np.float32)


def _add_blocks(writer: Any, rng: np.random.Generator, name: str, shape: tuple[int, int], kind: Any) -> None:
    """Random blocks of values with a standard deviation of about 1 / sqrt(columns)."""
    rows, columns = shape
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.frombuffer(rng.bytes(rows * columns // block_values * block_bytes), np.uint8).copy()
    blocks = blocks.reshape(-1, block_bytes)
    spread = {Type.Q4_0: 4.6, Type.Q6_K: 18.5 * 73}[kind]
    at = block_bytes - 2 if kind == Type.Q6_K else 0  # Q6_K's scale comes last
    scale = np.float16(1 / spread / np.sqrt(columns))
    blocks[:, at : at + 2] = np.frombuffer(scale.tobytes(), np.uint8)
    writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=kind)


def _close(path: Path, writer: Any) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(path.with_name(path.name + ".partial"), path)
    return path
