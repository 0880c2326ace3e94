"""The Gemma 3 family (text): Gemma 2 with normed heads instead of caps, and two sets of rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgesdk.cloud.families.blocks import ModelConfig
from edgesdk.cloud.families.dense import QK_NORM, read_layer, read_window, sliding_layers
from edgesdk.cloud.families.gemma2 import gemma_fields, gemma_model, gemma_shape

__all__ = ["gemma3_config"]

_GLOBAL_THETA, _LOCAL_THETA = 1e6, 1e4


def gemma3_config(config: Mapping[str, Any]) -> ModelConfig:
    """The blocks that a Gemma 3 text configuration describes. Raises ModelError with every problem it finds."""
    fields = gemma_fields(config)
    shape = gemma_shape(fields, max_context=131072)
    cap = config.get("attn_logit_softcapping")  # which transformers reads and does not use
    fields.require(cap is None, f"attn_logit_softcapping is {cap}, expected null: heads are normed instead")
    local, everywhere = (read_layer(fields, shape, own) for own in _rotary_configs(config))
    local = replace(local, window=read_window(fields, shape))
    period = fields.size("sliding_window_pattern", 6)
    slides = sliding_layers(fields, shape, lambda i: (i + 1) % period != 0)
    return gemma_model("gemma3", fields, shape, [local if own else everywhere for own in slides], QK_NORM)


def _rotary_configs(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Configurations with the rotary parameters of layers with a window, and of the others.

    Newer files have both sets in `rope_parameters`, older ones rope_local_base_freq, rope_theta and rope_scaling.
    """
    both = config.get("rope_parameters") or {}
    if "sliding_attention" not in both and "full_attention" not in both:
        both = {"full_attention": config.get("rope_scaling")}
    thetas = {
        "sliding_attention": config.get("rope_local_base_freq") or _LOCAL_THETA,
        "full_attention": config.get("rope_theta") or _GLOBAL_THETA,
    }
    plain = {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta")}
    local, everywhere = (
        {**plain, "rope_parameters": {"rope_theta": theta, **(both.get(kind) or {})}} for kind, theta in thetas.items()
    )
    return local, everywhere
