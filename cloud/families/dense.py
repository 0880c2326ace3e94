"""What dense decoders share: sizes read from a configuration, names of tensors, and layers of attention and gated MLP.

Source of the names and defaults: the configurations and models of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgesdk.cloud.families.blocks import Attention, Block, Mlp, ModelConfig, Source
from edgesdk.cloud.families.fields import MAX_CONTEXT, MAX_HEAD, MAX_LAYERS, Fields
from edgesdk.cloud.families.rope import rope_frequencies

__all__ = [
    "ATTENTION",
    "MLP",
    "QK_NORM",
    "Layer",
    "Shape",
    "biases",
    "dense_model",
    "projections",
    "read_layer",
    "read_shape",
    "read_window",
    "sliding_layers",
]

_SIZE_MULTIPLE = 8  # of d_model, head_dim and the MLP's width: columns of a panel (SPEC.md 4.1)

ATTENTION = {"norm": "input_layernorm.weight", **{role: f"self_attn.{role}_proj.weight" for role in "qkvo"}}
"""Tensors of an attention, by role, below the name of its layer."""

MLP = {"norm": "post_attention_layernorm.weight", **{r: f"mlp.{r}_proj.weight" for r in ("gate", "up", "down")}}
"""Tensors of an MLP, by role."""

QK_NORM = {"q_norm": "self_attn.q_norm.weight", "k_norm": "self_attn.k_norm.weight"}
"""What an attention has in addition where its query and key heads are normed."""

_MODEL = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}


@dataclass(frozen=True)
class Shape:
    """Sizes that all layers share."""

    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    width: int
    vocab_size: int
    n_layers: int
    max_context: int
    norm_eps: float


@dataclass(frozen=True)
class Layer:
    """What layers of one model may differ in. window: tokens that a token sees, None: all before it."""

    inv_freq: tuple[float, ...]
    rotary_scale: float
    window: int | None = None


def read_shape(
    fields: Fields,
    *,
    head_dim: int | None = None,
    n_kv_heads: int | None = None,
    max_context: int | None = None,
    norm_eps: float = 1e-6,
) -> Shape:
    """The sizes of a configuration; head_dim, n_kv_heads, max_context, norm_eps: for fields that are absent.

    By default a head has hidden_size / n_heads elements, and there are as many key/value heads as query heads.
    """
    d_model = fields.size("hidden_size", multiple=_SIZE_MULTIPLE)
    n_heads = fields.size("num_attention_heads")
    shape = Shape(
        d_model=d_model,
        n_heads=n_heads,
        head_dim=fields.size("head_dim", head_dim or d_model // n_heads, multiple=_SIZE_MULTIPLE, most=MAX_HEAD),
        n_kv_heads=fields.size("num_key_value_heads", n_kv_heads or n_heads),
        width=fields.size("intermediate_size", multiple=_SIZE_MULTIPLE),
        vocab_size=fields.size("vocab_size"),
        n_layers=fields.size("num_hidden_layers", most=MAX_LAYERS),
        max_context=fields.size("max_position_embeddings", max_context, most=MAX_CONTEXT),
        norm_eps=fields.positive("rms_norm_eps", norm_eps),
    )
    fields.require(
        n_heads % shape.n_kv_heads == 0,
        f"num_key_value_heads ({shape.n_kv_heads}) does not divide num_attention_heads ({n_heads})",
    )
    return shape


def read_layer(fields: Fields, shape: Shape, config: Mapping[str, Any] | None = None) -> Layer:
    """Rotary positions; config: with the parameters of these layers, where a model has several sets of them."""
    config = fields.config if config is None else config
    rotary = config.get("rope_parameters") or {}
    share = rotary.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1.0
    fields.require(share == 1.0, f"partial_rotary_factor is {share}, expected 1")
    no_rotation: tuple[tuple[float, ...], float] = ((), 1.0)
    return Layer(*fields.attempt(lambda: rope_frequencies(config, shape.head_dim), no_rotation))


def read_window(fields: Fields, shape: Shape) -> int | None:
    """The field `sliding_window`; None where it is absent, null, or as long as the context."""
    if fields.config.get("sliding_window") is None:
        return None
    window = fields.size("sliding_window")
    return None if window >= shape.max_context else window


def sliding_layers(fields: Fields, shape: Shape, slides: Callable[[int], bool]) -> list[bool]:
    """Which layers have a window: as `layer_types` says, or `slides` where the configuration has none."""
    types = fields.config.get("layer_types")
    if types is None:
        return [slides(i) for i in range(shape.n_layers)]
    known = ("sliding_attention", "full_attention")
    if not isinstance(types, list) or len(types) != shape.n_layers or any(kind not in known for kind in types):
        fields.require(False, f"layer_types is {types!r}, expected {shape.n_layers} times {' or '.join(known)}")
        return [False] * shape.n_layers
    return [kind == known[0] for kind in types]


def biases(module: str, roles: Sequence[str]) -> dict[str, str]:
    """Names of the biases of these roles, which belong to the linear layers of `module`."""
    return {f"{role}_bias": f"{module}.{role}_proj.bias" for role in roles}


def projections(norm: str, module: str, roles: Sequence[str], bias: bool) -> dict[str, str]:
    """Whole names by role: `norm`; for a role as `q` MODULE.q_proj.weight, and `q_bias` where there are biases."""
    weights = {role: f"{module}.{role}_proj.weight" for role in roles}
    return {"norm": f"{norm}.weight", **weights, **(biases(module, roles) if bias else {})}


def dense_model(
    family: str,
    shape: Shape,
    layers: Sequence[Layer],
    attention: Mapping[str, Source],
    mlp: Mapping[str, Source],
    *,
    tied_head: bool,
    activation: str = "silu",
    softmax_scale: float | None = None,
    softcap: float | None = None,
    logit_softcap: float | None = None,
    embedding_scale: float = 1.0,
    gain_offset: float = 0.0,
) -> ModelConfig:
    """The blocks of a model: an attention and an MLP per layer.

    attention, mlp: their tensors by role, below `model.layers.N.`; softmax_scale: 1 / sqrt(head_dim) when None
    gain_offset: what is added to the stored gains of all norms; the others are those of ModelConfig and its blocks
    """
    blocks: list[Block] = []
    for i, layer in enumerate(layers):
        prefix = f"model.layers.{i}."
        blocks += [
            Attention(
                name=f"blk.{i}.attn",
                n_heads=shape.n_heads,
                n_kv_heads=shape.n_kv_heads,
                head_dim=shape.head_dim,
                softmax_scale=shape.head_dim**-0.5 if softmax_scale is None else softmax_scale,
                inv_freq=layer.inv_freq,
                rotary_scale=layer.rotary_scale,
                sources={role: _below(prefix, source) for role, source in attention.items()},
                window=layer.window,
                softcap=softcap,
                gain_offset=gain_offset,
            ),
            Mlp(
                name=f"blk.{i}.mlp",
                width=shape.width,
                activation=activation,
                sources={role: _below(prefix, source) for role, source in mlp.items()},
                gain_offset=gain_offset,
            ),
        ]
    return ModelConfig(
        family=family,
        name="",
        d_model=shape.d_model,
        vocab_size=shape.vocab_size,
        max_context=shape.max_context,
        norm_eps=shape.norm_eps,
        embedding_scale=embedding_scale,
        tied_head=tied_head,
        blocks=tuple(blocks),
        sources=_MODEL,
        logit_softcap=logit_softcap,
        gain_offset=gain_offset,
    )


def _below(prefix: str, source: Source) -> Source:
    return prefix + source if isinstance(source, str) else replace(source, name=prefix + source.name)
