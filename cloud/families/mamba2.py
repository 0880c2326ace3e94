"""The Mamba-2 family: every layer is one state-space mixer. `mixer` is shared with the hybrids.

Source of the names, defaults and formulas: transformers' Mamba2Config and its model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgesdk.cloud.families.blocks import ModelConfig, Ssm
from edgesdk.cloud.families.fields import MAX_CONTEXT, MAX_HEAD, MAX_LAYERS, Fields

__all__ = ["mamba2_config", "mixer"]

_SIZE_MULTIPLE = 8  # of d_model, a head's channels and the state: columns of a panel and steps of axes (SPEC.md)
_CONTEXT = 1 << 20  # a state has no length of its own
_MOST_TAPS = 8  # of the convolution (SPEC.md 3)


def mamba2_config(config: Mapping[str, Any]) -> ModelConfig:
    """The blocks that a Mamba-2 configuration describes. Raises ModelError with every problem it finds."""
    fields = Fields(config)
    d_model = fields.size("hidden_size", multiple=_SIZE_MULTIPLE)
    vocab_size = fields.size("vocab_size")
    n_layers = fields.size("num_hidden_layers", most=MAX_LAYERS)
    max_context = fields.size("max_position_embeddings", _CONTEXT, most=MAX_CONTEXT)
    norm_eps = fields.positive("layer_norm_epsilon", 1e-5)
    fields.choice("hidden_act", ("silu", "swish"))
    names = {"heads": "num_heads", "head_dim": "head_dim", "state": "state_size", "groups": "n_groups"}

    def layer(index: int) -> Ssm:
        place = f"backbone.layers.{index}"
        return mixer(fields, names, f"blk.{index}.ssm", place, "mixer", "use_bias", "use_conv_bias")

    first = layer(0)
    inner = fields.size("expand", 2) * d_model
    fields.require(
        first.n_heads * first.head_dim == inner,
        f"num_heads * head_dim is {first.n_heads * first.head_dim}, expected expand * hidden_size = {inner}",
    )
    fields.finish()
    return ModelConfig(
        family="mamba2",
        name="",
        d_model=d_model,
        vocab_size=vocab_size,
        max_context=max_context,
        norm_eps=norm_eps,
        embedding_scale=1.0,
        tied_head=bool(config.get("tie_word_embeddings", False)),
        blocks=tuple(map(layer, range(n_layers))),
        sources={
            "embed": "backbone.embeddings.weight",
            "norm": "backbone.norm_f.weight",
            "head": "lm_head.weight",
        },
    )


def mixer(
    fields: Fields,
    names: Mapping[str, str],
    block: str,
    layer: str,
    module: str,
    bias: str,
    conv_bias: str,
    norm: str = "norm",
) -> Ssm:
    """The mixer of one layer; problems go to `fields`.

    names: the configuration's fields for heads, head_dim, state, groups (and conv, where it is not conv_kernel)
    layer, module, norm: where its tensors are: LAYER.MODULE.in_proj.weight, LAYER.NORM.weight
    bias, conv_bias: the fields that say whether projections and convolution have biases
    """
    n_heads = fields.size(names["heads"])
    head_dim = fields.size(names["head_dim"], multiple=_SIZE_MULTIPLE, most=MAX_HEAD)
    state_size = fields.size(names["state"], multiple=_SIZE_MULTIPLE, most=MAX_HEAD)
    n_groups = fields.size(names["groups"], 1)
    taps = fields.size(names.get("conv", "conv_kernel"), 4)
    fields.require(n_heads % n_groups == 0, f"{names['groups']} ({n_groups}) does not divide the {n_heads} heads")
    fields.require(2 <= taps <= _MOST_TAPS, f"the convolution has {taps} taps, expected 2 to {_MOST_TAPS}")
    place = f"{layer}.{module}"
    sources = {
        "norm": f"{layer}.{norm}.weight",
        "in": f"{place}.in_proj.weight",
        "conv": f"{place}.conv1d.weight",
        "dt_bias": f"{place}.dt_bias",
        "a_log": f"{place}.A_log",
        "d": f"{place}.D",
        "gain": f"{place}.norm.weight",
        "out": f"{place}.out_proj.weight",
    }
    if fields.config.get(conv_bias, True):
        sources["conv_bias"] = f"{place}.conv1d.bias"
    if fields.config.get(bias):
        sources |= {"in_bias": f"{place}.in_proj.bias", "out_bias": f"{place}.out_proj.bias"}
    limits = _step_limits(fields)
    return Ssm(block, n_heads, n_groups, head_dim, state_size, taps, n_groups, limits, sources)


def _step_limits(fields: Fields) -> tuple[float, float]:
    """`time_step_limit`; JSON has no infinity, so transformers writes it in several ways."""
    found = fields.config.get("time_step_limit") or (0.0, math.inf)
    try:
        low, high = (float(v["__float__"] if isinstance(v, Mapping) else v) for v in found)
    except (TypeError, ValueError, KeyError):
        low, high = 1.0, 0.0
    fields.require(0 <= low <= high, f"time_step_limit is {found!r}, expected [least, most]")
    return low, high
