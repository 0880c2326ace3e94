"""The Llama family: RMSNorm, grouped-query attention with rotary positions, SwiGLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesdk.cloud.families.blocks import ModelConfig
from edgesdk.cloud.families.dense import ATTENTION, MLP, biases, dense_model, read_layer, read_shape
from edgesdk.cloud.families.fields import Fields

__all__ = ["llama_config"]


def llama_config(config: Mapping[str, Any]) -> ModelConfig:
    """The blocks that a Llama configuration describes. Raises ModelError with every problem it finds."""
    fields = Fields(config)
    shape = read_shape(fields, max_context=2048)
    activation = fields.choice("hidden_act", ("silu",))
    layer = read_layer(fields, shape)
    fields.finish()
    return dense_model(
        "llama",
        shape,
        [layer] * shape.n_layers,
        ATTENTION | (biases("self_attn", "qkvo") if config.get("attention_bias") else {}),
        MLP | (biases("mlp", ("gate", "up", "down")) if config.get("mlp_bias") else {}),
        activation=activation,
        tied_head=bool(config.get("tie_word_embeddings", False)),
    )
