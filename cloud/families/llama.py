"""The Llama family: RMSNorm, grouped-query attention with rotary positions, SwiGLU. Mistral without its window is one.

Source of the names, defaults and formulas: transformers' LlamaConfig, MistralConfig and their models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesdk.cloud.families.blocks import Attention, Block, Mlp, ModelConfig
from edgesdk.cloud.families.fields import Fields
from edgesdk.cloud.families.rope import rope_frequencies

__all__ = ["llama_config", "projections"]

_SIZE_MULTIPLE = 8  # of d_model, head_dim and the MLP's width: columns of a panel (SPEC.md 4.1)

_NO_ROTATION: tuple[tuple[float, ...], float] = ((), 1.0)


def llama_config(config: Mapping[str, Any]) -> ModelConfig:
    """The blocks that a Llama or Mistral configuration describes. Raises ModelError with every problem it finds."""
    fields = Fields(config)
    d_model = fields.size("hidden_size", multiple=_SIZE_MULTIPLE)
    n_heads = fields.size("num_attention_heads")
    head_dim = fields.size("head_dim", d_model // n_heads, multiple=_SIZE_MULTIPLE)
    n_kv_heads = fields.size("num_key_value_heads", n_heads)
    width = fields.size("intermediate_size", multiple=_SIZE_MULTIPLE)
    vocab_size = fields.size("vocab_size")
    n_layers = fields.size("num_hidden_layers")
    max_context = fields.size("max_position_embeddings", 2048)
    norm_eps = fields.positive("rms_norm_eps", 1e-6)
    fields.require(
        n_heads % n_kv_heads == 0, f"num_key_value_heads ({n_kv_heads}) does not divide num_attention_heads ({n_heads})"
    )
    activation = fields.choice("hidden_act", ("silu",))
    _refuse_variants(fields, max_context)
    inv_freq, rotary_scale = fields.attempt(lambda: rope_frequencies(config, head_dim), _NO_ROTATION)
    fields.finish()
    attention_bias, mlp_bias = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
    blocks: list[Block] = []
    for i in range(n_layers):
        layer = f"model.layers.{i}"
        blocks.append(
            Attention(
                name=f"blk.{i}.attn",
                n_heads=n_heads,
                n_kv_heads=n_kv_heads,
                head_dim=head_dim,
                softmax_scale=head_dim**-0.5,
                inv_freq=inv_freq,
                rotary_scale=rotary_scale,
                sources=projections(f"{layer}.input_layernorm", f"{layer}.self_attn", "qkvo", attention_bias),
            )
        )
        mlp_sources = projections(f"{layer}.post_attention_layernorm", f"{layer}.mlp", ("gate", "up", "down"), mlp_bias)
        blocks.append(Mlp(name=f"blk.{i}.mlp", width=width, activation=activation, sources=mlp_sources))
    return ModelConfig(
        family="llama",
        name="",
        d_model=d_model,
        vocab_size=vocab_size,
        max_context=max_context,
        norm_eps=norm_eps,
        embedding_scale=1.0,
        tied_head=bool(config.get("tie_word_embeddings", False)),
        blocks=tuple(blocks),
        sources={"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"},
    )


def projections(norm: str, module: str, roles: tuple[str, ...] | str, bias: bool) -> dict[str, str]:
    """Tensor names by role: `norm`; for a role as `q` MODULE.q_proj.weight, and `q_bias` where there are biases."""
    sources = {"norm": f"{norm}.weight"}
    for role in roles:
        sources[role] = f"{module}.{role}_proj.weight"
        if bias:
            sources[f"{role}_bias"] = f"{module}.{role}_proj.bias"
    return sources


def _refuse_variants(fields: Fields, max_context: int) -> None:
    """What a configuration may ask for that these blocks do not do; ignoring it would silently change the model."""
    if fields.config.get("model_type") == "mistral":
        window = fields.config.get("sliding_window", 4096)  # transformers' default when the field is absent
        fields.require(
            window is None or window >= max_context,
            f"sliding_window is {window}, expected null (attention over the whole context of {max_context})",
        )
    rotary = fields.config.get("rope_parameters") or {}
    share = rotary.get("partial_rotary_factor", fields.config.get("partial_rotary_factor")) or 1.0
    fields.require(share == 1.0, f"partial_rotary_factor is {share}, expected 1")
