"""The Nemotron-H family: each layer is a Mamba-2 mixer, an attention without positions, or an MLP with ReLU^2.

Source of the names, defaults and formulas: transformers' NemotronHConfig and its model, and NVIDIA's files. Steps of
the mixers are cut to `time_step_limit`, as NVIDIA's own code does; transformers cuts them at `time_step_min`, which is
too small to make a difference to a trained model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesdk.cloud.families.blocks import Attention, Block, Mlp, ModelConfig
from edgesdk.cloud.families.dense import projections
from edgesdk.cloud.families.fields import MAX_CONTEXT, MAX_HEAD, MAX_LAYERS, Fields
from edgesdk.cloud.families.mamba2 import mixer

__all__ = ["nemotron_h_config"]

_SIZE_MULTIPLE = 8  # of d_model, head_dim and the MLP's width: columns of a panel (SPEC.md 4.1)
_MIXER = {"heads": "mamba_num_heads", "head_dim": "mamba_head_dim", "state": "ssm_state_size", "groups": "n_groups"}
_LETTERS = {"M": "ssm", "*": "attn", "-": "mlp"}
_KINDS = {
    "linear_attention": "ssm",
    "mamba": "ssm",
    "full_attention": "attn",
    "attention": "attn",
    "mlp": "mlp",
}


def nemotron_h_config(config: Mapping[str, Any]) -> ModelConfig:
    """The blocks that a Nemotron-H configuration describes. Raises ModelError with every problem it finds."""
    fields = Fields(config)
    d_model = fields.size("hidden_size", multiple=_SIZE_MULTIPLE)
    n_heads = fields.size("num_attention_heads")
    head_dim = fields.size("head_dim", 128, multiple=_SIZE_MULTIPLE, most=MAX_HEAD)
    n_kv_heads = fields.size("num_key_value_heads", n_heads)
    width = fields.size("intermediate_size", multiple=_SIZE_MULTIPLE)
    vocab_size = fields.size("vocab_size")
    max_context = fields.size("max_position_embeddings", 4096, most=MAX_CONTEXT)
    norm_eps = fields.positive("layer_norm_epsilon", 1e-5)
    fields.require(
        n_heads % n_kv_heads == 0, f"num_key_value_heads ({n_kv_heads}) does not divide num_attention_heads ({n_heads})"
    )
    activation = fields.choice("mlp_hidden_act", ("relu2",))
    fields.choice("mamba_hidden_act", ("silu",))
    window = config.get("sliding_window")
    fields.require(window is None or window >= max_context, f"sliding_window is {window}, expected null")
    kinds = _kinds(fields)
    mixer(fields, _MIXER, "", "", "", bias="use_bias", conv_bias="use_conv_bias")
    fields.finish()
    blocks: list[Block] = []
    for i, kind in enumerate(kinds):
        layer = f"backbone.layers.{i}"
        name, norm, module = f"blk.{i}.{kind}", f"{layer}.norm", f"{layer}.mixer"
        if kind == "ssm":
            blocks.append(mixer(fields, _MIXER, name, layer, "mixer", "use_bias", "use_conv_bias"))
        elif kind == "attn":
            sources = projections(norm, module, "qkvo", bias=False)
            still = (0.0,) * (head_dim // 2)  # no positions: pairs that do not turn
            blocks.append(Attention(name, n_heads, n_kv_heads, head_dim, head_dim**-0.5, still, 1.0, sources))
        else:
            sources = projections(norm, module, ("up", "down"), bool(config.get("mlp_bias")))
            blocks.append(Mlp(name=name, width=width, activation=activation, sources=sources, gated=False))
    return ModelConfig(
        family="nemotron_h",
        name="",
        d_model=d_model,
        vocab_size=vocab_size,
        max_context=max_context,
        norm_eps=norm_eps,
        embedding_scale=1.0,
        tied_head=False,  # transformers never ties it, whatever tie_word_embeddings says
        blocks=tuple(blocks),
        sources={"embed": "backbone.embeddings.weight", "norm": "backbone.norm_f.weight", "head": "lm_head.weight"},
    )


def _kinds(fields: Fields) -> list[str]:
    """The kind of each layer, from a list of names or from a pattern of letters (`M-M*`)."""
    listed = next((fields.config[n] for n in ("layers_block_type", "layer_types") if fields.config.get(n)), None)
    names = list(listed or fields.config.get("hybrid_override_pattern") or ())
    fields.require(len(names) <= MAX_LAYERS, f"there are {len(names)} layers, expected at most {MAX_LAYERS}")
    known = _KINDS if listed else _LETTERS
    unknown = sorted({str(name) for name in names if name not in known})
    fields.require(not unknown, f"layers of type {', '.join(unknown)} are not known, expected {', '.join(known)}")
    fields.require(bool(names), "layers_block_type is missing, expected the type of each layer")
    return [known[name] for name in names if name in known]
