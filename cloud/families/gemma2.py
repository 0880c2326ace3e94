"""The Gemma 2 family: two norms around each block, scaled embeddings, gelu, capped scores and logits.

Every second layer has a window. Gains of norms are stored less 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgesdk.cloud.families.blocks import ModelConfig
from edgesdk.cloud.families.dense import (
    ATTENTION,
    MLP,
    Layer,
    Shape,
    biases,
    dense_model,
    read_layer,
    read_shape,
    read_window,
    sliding_layers,
)
from edgesdk.cloud.families.fields import Fields

__all__ = ["gemma2_config", "gemma_fields", "gemma_model", "gemma_shape"]

_ATTENTION = ATTENTION | {"post_norm": "post_attention_layernorm.weight"}
_MLP = MLP | {"norm": "pre_feedforward_layernorm.weight", "post_norm": "post_feedforward_layernorm.weight"}


def gemma2_config(config: Mapping[str, Any]) -> ModelConfig:
    """The blocks that a Gemma 2 configuration describes. Raises ModelError with every problem it finds."""
    fields = gemma_fields({"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, **config})
    shape = gemma_shape(fields, max_context=8192)
    everywhere = read_layer(fields, shape)
    local = replace(everywhere, window=read_window(fields, shape))
    slides = sliding_layers(fields, shape, lambda i: i % 2 == 0)
    return gemma_model("gemma2", fields, shape, [local if own else everywhere for own in slides])


def gemma_fields(config: Mapping[str, Any]) -> Fields:
    """A configuration of Gemma 2 or 3 with the defaults that they share."""
    fields = Fields({"sliding_window": 4096, "tie_word_embeddings": True, **config})
    fields.require(
        not config.get("use_bidirectional_attention"), "use_bidirectional_attention is set, expected causal attention"
    )
    return fields


def gemma_shape(fields: Fields, max_context: int) -> Shape:
    """The sizes of a Gemma 2 or 3."""
    return read_shape(fields, head_dim=256, n_kv_heads=4, max_context=max_context)


def gemma_model(
    family: str, fields: Fields, shape: Shape, layers: Sequence[Layer], norms: dict[str, str] | None = None
) -> ModelConfig:
    """What Gemma 2 and 3 share; norms: more tensors of an attention. Raises what `fields` found."""
    config = fields.config
    fields.choice("hidden_activation", ("gelu_pytorch_tanh",))
    scalar = fields.positive("query_pre_attn_scalar", 256.0)
    softcap, logit_softcap = (
        fields.positive(name) if config.get(name) is not None else None
        for name in ("attn_logit_softcapping", "final_logit_softcapping")
    )
    fields.finish()
    return dense_model(
        family,
        shape,
        layers,
        _ATTENTION | (norms or {}) | (biases("self_attn", "qkvo") if config.get("attention_bias") else {}),
        _MLP,
        tied_head=bool(config["tie_word_embeddings"]),
        activation="gelu_tanh",
        softmax_scale=scalar**-0.5,
        softcap=softcap,
        logit_softcap=logit_softcap,
        embedding_scale=math.sqrt(shape.d_model),
        gain_offset=1.0,
    )
