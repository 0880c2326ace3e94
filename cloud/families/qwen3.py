"""The Qwen 3 family: Qwen 2 with normed query and key heads instead of biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesdk.cloud.families.blocks import ModelConfig
from edgesdk.cloud.families.dense import ATTENTION, QK_NORM, biases
from edgesdk.cloud.families.qwen2 import qwen_model

__all__ = ["qwen3_config"]


def qwen3_config(config: Mapping[str, Any]) -> ModelConfig:
    """The blocks that a Qwen 3 configuration describes. Raises ModelError with every problem it finds."""
    attention = ATTENTION | QK_NORM | (biases("self_attn", "qkvo") if config.get("attention_bias") else {})
    return qwen_model("qwen3", config, attention, head_dim=128)
