"""The Phi-3 family: Llama whose q, k and v are stored as one tensor, and gate and up as another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgesdk.cloud.families.blocks import ModelConfig, Rows
from edgesdk.cloud.families.dense import ATTENTION, MLP, dense_model, read_layer, read_shape, read_window
from edgesdk.cloud.families.fields import Fields

__all__ = ["phi3_config"]

_QKV, _GATE_UP = "self_attn.qkv_proj.weight", "mlp.gate_up_proj.weight"


def phi3_config(config: Mapping[str, Any]) -> ModelConfig:
    """The blocks that a Phi-3 configuration describes. Raises ModelError with every problem it finds."""
    fields = Fields({"rms_norm_eps": 1e-5, **config})
    shape = read_shape(fields, max_context=4096)
    activation = fields.choice("hidden_act", ("silu",))
    layer = replace(read_layer(fields, shape), window=read_window(fields, shape))
    fields.finish()
    q, kv, width = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim, shape.width
    qkv = {"q": Rows(_QKV, 0, q), "k": Rows(_QKV, q, q + kv), "v": Rows(_QKV, q + kv, q + 2 * kv)}
    gate_up = {"gate": Rows(_GATE_UP, 0, width), "up": Rows(_GATE_UP, width, 2 * width)}
    return dense_model(
        "phi3",
        shape,
        [layer] * shape.n_layers,
        {**ATTENTION, **qkv},
        {**MLP, **gate_up},
        activation=activation,
        tied_head=bool(config.get("tie_word_embeddings", False)),
    )
