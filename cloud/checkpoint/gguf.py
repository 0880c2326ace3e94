"""A GGUF file, read as if it were the Hugging Face checkpoint it was converted from.

Tensor names, the configuration and the order of rotary rows are translated back; values are dequantized to float32.
Sources: the GGUF specification (ggml documentation), and the `gguf` package, which dequantizes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, dequantize
from gguf.constants import GGML_QUANT_SIZES

from edgesdk.cloud.checkpoint.checkpoint import Checkpoint, LazyTensor, Source, TokenizerFiles
from edgesdk.cloud.checkpoint.gguf_config import ROPE_FACTORS, hf_config
from edgesdk.cloud.checkpoint.gguf_file import GgufTensor, read_gguf
from edgesdk.cloud.untrusted import malformed
from edgesdk.errors import ModelError

__all__ = ["open_gguf"]

_MODEL_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_LAYER_NAMES = _LAYER_NAMES | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GAIN_OFFSETS = {"gemma3": 1.0}  # architectures whose gains GGUF holds with this added
_INTERLEAVED = ("llama",)  # architectures whose query and key rows come as (pair, half); others keep (half, pair)


def open_gguf(path: Path) -> Checkpoint:
    """Open a GGUF file of a supported architecture; the header is read and checked, weights are not.

    Raises ModelError for a file that is damaged, split or big-endian, and for an architecture that is not known.
    """
    file = read_gguf(path)
    with malformed(f"the metadata of {path}"):
        return _checkpoint(path, file.metadata, {tensor.name: tensor for tensor in file.tensors})


def _checkpoint(path: Path, metadata: Mapping[str, Any], stored: Mapping[str, GgufTensor]) -> Checkpoint:
    if metadata.get("split.count", 1) > 1:
        raise ModelError(
            f"{path} is one of {metadata['split.count']} parts of a model",
            hint="join them first: `llama-gguf-split --merge FIRST_PART OUTPUT`",
        )
    config = hf_config(path, metadata, {name: t.shape for name, t in stored.items()}, _rope_factors(path, stored))
    heads = {}
    architecture = str(metadata["general.architecture"])
    layer_names = _GEMMA_LAYER_NAMES if architecture == "gemma3" else _LAYER_NAMES
    if architecture in _INTERLEAVED:
        heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for name, tensor in stored.items():
        if name != ROPE_FACTORS:
            role = name.split(".")[2] if name.startswith("blk.") and name.count(".") == 3 else ""
            offset = _GAIN_OFFSETS.get(architecture, 0.0) if name.endswith("norm.weight") else 0.0
            tensors[_hf_name(name, layer_names)] = _lazy(tensor, heads.get(role, 0), offset)
    template = metadata.get("tokenizer.chat_template")
    licence = metadata.get("general.license")
    name = str(metadata.get("general.name") or path.stem)
    return Checkpoint(
        source=Source("gguf", name, path, str(path.resolve()), str(licence) if licence else None, (path,)),
        config=config,
        tokenizer_files=TokenizerFiles(gguf=path),
        chat_template=template if isinstance(template, str) else None,
        tensors=tensors,
    )


def _hf_name(name: str, layer_names: Mapping[str, str]) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; a name that is not known stays as it is."""
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
        layer, role, kind = match.groups()
        return f"model.layers.{layer}.{layer_names[role]}.{kind}" if role in layer_names else name
    stem, _, kind = name.rpartition(".")
    return f"{_MODEL_NAMES[stem]}.{kind}" if stem in _MODEL_NAMES else name


def _lazy(tensor: GgufTensor, heads: int, offset: float) -> LazyTensor:
    """heads: not 0 for query and key projections, whose rows come in GGUF's rotary order; offset: to be taken off."""
    refusal = ""
    if not _can_dequantize(tensor.kind):
        refusal = f"is stored as {tensor.kind.name}, which the gguf package cannot dequantize"
    elif heads and (not tensor.shape or tensor.shape[0] % (2 * heads)):
        refusal = f"has the shape {tensor.shape}, whose rows are not pairs of {heads} heads"
    return LazyTensor(tensor.shape, tensor.kind.name, partial(_read, tensor, heads, offset), refusal)


def _read(tensor: GgufTensor, heads: int, offset: float) -> torch.Tensor:
    values = torch.from_numpy(_float32(tensor)).reshape(tensor.shape)
    if offset:
        values -= offset
    return _half_split_order(values, heads) if heads else values


def _float32(tensor: GgufTensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    with np.errstate(over="ignore", invalid="ignore"):  # calibration refuses weights that are not finite
        if tensor.kind == GGMLQuantizationType.F64:
            return np.array(tensor.data, dtype=np.float32)
        return np.array(dequantize(np.ascontiguousarray(tensor.data), tensor.kind), dtype=np.float32)


def _half_split_order(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head from GGUF's (pair, half) order back to (half, pair), as Hugging Face's rotary code expects.

    values: (heads * head_dim, ...) weight or bias. llama.cpp's converter swaps these two axes; this swaps them back.
    """
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return pairs.transpose(1, 2).reshape(values.shape).contiguous()


def _rope_factors(path: Path, stored: Mapping[str, GgufTensor]) -> list[float] | None:
    """Divisors of the rotary frequencies: the converter turns llama3 scaling into this tensor."""
    if ROPE_FACTORS not in stored:
        return None
    tensor = stored[ROPE_FACTORS]
    if not _can_dequantize(tensor.kind) or len(tensor.shape) != 1:
        raise ModelError(f"{path}: `{ROPE_FACTORS}` is {tensor.kind.name} {tensor.shape}, expected a float vector")
    return [float(value) for value in _float32(tensor)]


@cache
def _can_dequantize(kind: GGMLQuantizationType) -> bool:
    """Asked of the gguf package itself, with one block of zeros, so that a newer package brings its newer types."""
    if kind == GGMLQuantizationType.F64:
        return True
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8), kind)
    except NotImplementedError:  # how the package says that it knows the type's size but not its values
        return False
    return True
