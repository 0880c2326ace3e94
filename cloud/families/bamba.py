"""The Bamba family: in each layer a Mamba-2 mixer or an attention with partly rotated heads, then a SwiGLU.

Source of the names, defaults and formulas: transformers' BambaConfig and its model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesdk.cloud.families.blocks import Attention, Block, Mlp, ModelConfig
from edgesdk.cloud.families.dense import projections, read_shape
from edgesdk.cloud.families.fields import Fields
from edgesdk.cloud.families.mamba2 import mixer
from edgesdk.cloud.families.rope import rope_frequencies

__all__ = ["bamba_config"]

_ROTATED = 0.5  # of a head, where the configuration does not say
_MIXER = {
    "heads": "mamba_n_heads",
    "head_dim": "mamba_d_head",
    "state": "mamba_d_state",
    "groups": "mamba_n_groups",
    "conv": "mamba_d_conv",
}
_NO_ROTATION: tuple[tuple[float, ...], float] = ((), 1.0)


def bamba_config(config: Mapping[str, Any]) -> ModelConfig:
    """The blocks that a Bamba configuration describes. Raises ModelError with every problem it finds."""
    fields = Fields(_with_head_size(config))
    shape = read_shape(fields, max_context=262144, norm_eps=1e-5)
    head_dim = shape.head_dim
    activation = fields.choice("hidden_act", ("silu",))
    rotary = config.get("rope_parameters") or {}
    share = rotary.get("partial_rotary_factor") or config.get("partial_rotary_factor") or _ROTATED
    rotary_dim = int(head_dim * share)
    fields.require(
        0 < share <= 1 and rotary_dim % 2 == 0, f"partial_rotary_factor is {share}, expected whole pairs of {head_dim}"
    )
    inv_freq, rotary_scale = fields.attempt(lambda: rope_frequencies(config, rotary_dim), _NO_ROTATION)
    fields.require(rotary_scale == 1.0 or share == 1.0, "yarn scaling of partly rotated heads is not known")
    attention = set(config.get("attn_layer_indices") or ())
    mixer(fields, _MIXER, "", "", "", bias="mamba_proj_bias", conv_bias="mamba_conv_bias")
    fields.finish()
    blocks: list[Block] = []
    for i in range(shape.n_layers):
        layer = f"model.layers.{i}"
        norm = f"{layer}.input_layernorm"
        if i in attention:
            blocks.append(
                Attention(
                    name=f"blk.{i}.attn",
                    n_heads=shape.n_heads,
                    n_kv_heads=shape.n_kv_heads,
                    head_dim=head_dim,
                    softmax_scale=head_dim**-0.5,
                    inv_freq=(*inv_freq, *(0.0,) * (head_dim // 2 - len(inv_freq))),
                    rotary_scale=rotary_scale,
                    sources=projections(norm, f"{layer}.self_attn", "qkvo", bool(config.get("attention_bias"))),
                    rotary_dim=rotary_dim if rotary_dim < head_dim else 0,
                )
            )
        else:
            flags = ("mamba_proj_bias", "mamba_conv_bias")
            blocks.append(mixer(fields, _MIXER, f"blk.{i}.ssm", layer, "mamba", *flags, norm="input_layernorm"))
        roles, mlp_bias = ("gate", "up", "down"), bool(config.get("mlp_bias"))
        sources = projections(f"{layer}.pre_ff_layernorm", f"{layer}.feed_forward", roles, mlp_bias)
        blocks.append(Mlp(name=f"blk.{i}.mlp", width=shape.width, activation=activation, sources=sources))
    return ModelConfig(
        family="bamba",
        name="",
        d_model=shape.d_model,
        vocab_size=shape.vocab_size,
        max_context=shape.max_context,
        norm_eps=shape.norm_eps,
        embedding_scale=1.0,
        tied_head=bool(config.get("tie_word_embeddings", False)),
        blocks=tuple(blocks),
        sources={
            "embed": "model.embed_tokens.weight",
            "norm": "model.final_layernorm.weight",
            "head": "lm_head.weight",
        },
    )


def _with_head_size(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`mamba_d_head` may be `auto`: what is left of the inner width for each head."""
    sizes = [config.get(name, default) for name, default in (("hidden_size", 0), ("mamba_n_heads", 128))]
    if config.get("mamba_d_head", "auto") != "auto" or not all(isinstance(size, int) and size > 0 for size in sizes):
        return config
    return {**config, "mamba_d_head": config.get("mamba_expand", 2) * sizes[0] // sizes[1]}
