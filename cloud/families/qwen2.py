"""The Qwen 2 and 2.5 family: Llama with biases of q, k and v, and windows from a layer on where they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgesdk.cloud.families.blocks import ModelConfig
from edgesdk.cloud.families.dense import (
    ATTENTION,
    MLP,
    biases,
    dense_model,
    read_layer,
    read_shape,
    read_window,
    sliding_layers,
)
from edgesdk.cloud.families.fields import Fields

__all__ = ["qwen2_config", "qwen_model"]


def qwen2_config(config: Mapping[str, Any]) -> ModelConfig:
    """The blocks that a Qwen 2 or 2.5 configuration describes. Raises ModelError with every problem it finds."""
    return qwen_model("qwen2", config, ATTENTION | biases("self_attn", "qkv"))


def qwen_model(
    family: str, config: Mapping[str, Any], attention: Mapping[str, str], head_dim: int | None = None
) -> ModelConfig:
    """What Qwen 2 and 3 share. attention: its tensors; head_dim: where the configuration has none."""
    fields = Fields({"sliding_window": 4096, **config})
    shape = read_shape(fields, head_dim=head_dim, n_kv_heads=32, max_context=32768)
    activation = fields.choice("hidden_act", ("silu",))
    layer = read_layer(fields, shape)
    first = fields.size("max_window_layers", 28)  # layers below it see everything
    slides = sliding_layers(fields, shape, lambda i: i >= first)
    window = read_window(fields, shape) if config.get("use_sliding_window") else None
    fields.finish()
    return dense_model(
        family,
        shape,
        [replace(layer, window=window if own else None) for own in slides],
        attention,
        MLP,
        activation=activation,
        tied_head=bool(config.get("tie_word_embeddings", False)),
    )
