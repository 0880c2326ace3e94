"""The Hugging Face configuration that a GGUF file's metadata stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.errors import ModelError

__all__ = ["ROPE_FACTORS", "hf_config"]

ROPE_FACTORS = "rope_freqs.weight"
_ARCHITECTURES = {  # GGUF architecture -> Hugging Face model_type
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3": "gemma3_text",
}
# Metadata that changes the function and that none of these architectures' families expresses.
_FOREIGN = (
    "expert_count",
    "attention.scale",
    "attention.clamp_kqv",
    "attention.value_length_mla",
    "rope.scaling.yarn_log_multiplier",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
)
_WINDOW = "attention.sliding_window"
_GEMMA3_27B_BLOCKS = 62  # the one Gemma 3 whose scores are not scaled by the size of a head
_TOKEN_IDS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
    "unk_token_id": "tokenizer.ggml.unknown_token_id",
}


@dataclass(frozen=True)
class _Metadata:
    """The fields of one architecture, `{arch}.key`, with errors that name the file and the field."""

    path: Path
    fields: Mapping[str, Any]
    architecture: str

    def get(self, key: str, default: Any = None) -> Any:
        return self.fields.get(f"{self.architecture}.{key}", default)

    def integer(self, key: str, default: int | None = None) -> int:
        """A size. Some are stored per layer; a model whose layers differ is not supported."""
        value = self.get(key, default)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            found = "differs between layers" if isinstance(value, list) else f"is {value!r}"
            raise ModelError(f"{self.path}: `{self.architecture}.{key}` {found}, expected one positive integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ModelError(f"{self.path}: `{self.architecture}.{key}` is {value!r}, expected a finite number")
        return float(value)


def hf_config(
    path: Path, metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], factors: list[float] | None
) -> dict[str, Any]:
    """A config.json equivalent.

    shapes: of the file's tensors under their GGUF names (they tell biases, a tied head and the vocabulary)
    factors: (head_dim / 2,) divisors of the rotary frequencies, or None
    Raises ModelError for an unknown architecture, and for metadata that is missing, malformed or not supported.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise ModelError(
            f"{path} has the GGUF architecture `{architecture}`, expected one of: {', '.join(sorted(_ARCHITECTURES))}",
            hint="give the Hugging Face directory of the model if its family is supported there",
        )
    fields = _Metadata(path, metadata, str(architecture))
    is_gemma = architecture == "gemma3"
    unknown = _FOREIGN if is_gemma else (*_FOREIGN, _WINDOW)
    if foreign := [f"{architecture}.{key} = {fields.get(key)}" for key in unknown if fields.get(key)]:
        raise ModelError(f"{path} asks for what a plain {architecture} model does not have: {', '.join(foreign)}")
    embedding = shapes.get("token_embd.weight")
    if embedding is None or len(embedding) != 2:
        raise ModelError(f"{path} has no matrix `token_embd.weight`")
    n_heads = fields.integer("attention.head_count")
    hidden_size = fields.integer("embedding_length")
    head_dim = fields.integer("attention.key_length", hidden_size // n_heads)
    _check_head_dim(fields, head_dim)
    return {
        "model_type": _ARCHITECTURES[str(architecture)],
        "hidden_size": hidden_size,
        "intermediate_size": fields.integer("feed_forward_length"),
        "num_hidden_layers": fields.integer("block_count"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": fields.integer("attention.head_count_kv", n_heads),
        "head_dim": head_dim,
        "vocab_size": embedding[0],
        "max_position_embeddings": fields.integer("context_length"),
        "rms_norm_eps": fields.number("attention.layer_norm_rms_epsilon"),
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in shapes,
        "mlp_bias": "blk.0.ffn_up.bias" in shapes,
        "tie_word_embeddings": "output.weight" not in shapes,
        "rope_parameters": _rope_parameters(fields, factors),
        **(_gemma3_config(fields, hidden_size // n_heads, head_dim, factors) if is_gemma else {}),
        **{name: metadata[key] for name, key in _TOKEN_IDS.items() if key in metadata},
    }


def _gemma3_config(fields: _Metadata, row_size: int, head_dim: int, factors: list[float] | None) -> dict[str, Any]:
    """What Gemma 3 has beside the others. row_size: d_model / n_heads; most files do not say how local layers turn."""
    turns = {
        "full_attention": _rope_parameters(fields, factors),
        "sliding_attention": {"rope_type": "default", "rope_theta": fields.number("rope.freq_base_swa", 10000.0)},
    }
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": row_size if fields.integer("block_count") == _GEMMA3_27B_BLOCKS else head_dim,
        "sliding_window": fields.integer(_WINDOW),
        "rope_parameters": turns,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    }


def _check_head_dim(fields: _Metadata, head_dim: int) -> None:
    for key in ("attention.value_length", "rope.dimension_count"):
        if (size := fields.integer(key, head_dim)) != head_dim:
            raise ModelError(f"{fields.path}: `{key}` is {size}, expected {head_dim} like the heads of the queries")


def _rope_parameters(fields: _Metadata, factors: list[float] | None) -> dict[str, Any]:
    """Rotary parameters as transformers names them. `factors` is a type of our own: divisors, one per pair.

    Under yarn ggml multiplies cos and sin by attn_factor * (1 + 0.1 ln factor): transformers' attention_factor.
    """
    base = {"rope_theta": fields.number("rope.freq_base", 10000.0)}
    kind = fields.get("rope.scaling.type", "linear" if fields.get("rope.scale_linear") else "none")
    factor = fields.number("rope.scaling.factor", fields.get("rope.scale_linear", 1.0)) or 1.0
    if factors is not None:
        if kind != "none" and factor != 1.0:
            raise ModelError(f"{fields.path} has `{ROPE_FACTORS}` and `{kind}` rotary scaling, expected one of them")
        return base | {"rope_type": "factors", "factors": factors}
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return base | {"rope_type": "default"}
    if kind == "linear":
        return base | {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise ModelError(f"{fields.path}: rotary scaling `{kind}` is not supported, expected none, linear or yarn")
    if (ext_factor := fields.number("rope.scaling.yarn_ext_factor", 1.0)) not in (1.0, -1.0):
        raise ModelError(f"{fields.path}: yarn_ext_factor is {ext_factor}, only 1 is supported")
    attention = fields.number("rope.scaling.attn_factor", 1.0) * fields.number("rope.scaling.yarn_attn_factor", 1.0)
    return base | {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": fields.integer(
            "rope.scaling.original_context_length", fields.integer("context_length")
        ),
        "beta_fast": fields.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": fields.number("rope.scaling.yarn_beta_slow", 1.0),
        "attention_factor": attention * (1.0 + 0.1 * math.log(factor)),
    }
