"""The Mistral family: Llama with a sliding window, in all layers or in none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgesdk.cloud.families.blocks import ModelConfig
from edgesdk.cloud.families.dense import ATTENTION, MLP, dense_model, read_layer, read_shape, read_window
from edgesdk.cloud.families.fields import Fields

__all__ = ["mistral_config"]


def mistral_config(config: Mapping[str, Any]) -> ModelConfig:
    """The blocks that a Mistral configuration describes. Raises ModelError with every problem it finds."""
    fields = Fields({"sliding_window": 4096, **config})
    shape = read_shape(fields, n_kv_heads=8, max_context=4096 * 32)
    activation = fields.choice("hidden_act", ("silu",))
    layer = replace(read_layer(fields, shape), window=read_window(fields, shape))
    fields.finish()
    return dense_model(
        "mistral",
        shape,
        [layer] * shape.n_layers,
        ATTENTION,
        MLP,
        activation=activation,
        tied_head=bool(config.get("tie_word_embeddings", False)),
    )
