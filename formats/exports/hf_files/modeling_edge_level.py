"""A level of an .edge artifact as a transformers model: a Llama whose layers differ in head and MLP sizes.

Written by `edgesdk export --to hf` beside config.json; needs torch and transformers, nothing of edgesdk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

__all__ = ["EdgeLevelConfig", "EdgeLevelForCausalLM"]

# Its name is changing in transformers 5.
_CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


class EdgeLevelConfig(PretrainedConfig):
    """layer_sizes: [qk, vo, width] of each layer, elements of a head and channels; biases: names of those there are."""

    model_type = "edge_level"

    def __init__(self, layer_sizes: Any = (), biases: Any = (), softmax_scale: float = 1.0, **fields: Any) -> None:
        self.layer_sizes = [list(sizes) for sizes in layer_sizes]
        self.biases = list(biases)
        self.softmax_scale = softmax_scale
        super().__init__(**fields)


class _Norm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class _Bias(nn.Module):
    """What is left of a block that the level drops."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))


class _Attention(nn.Module):
    def __init__(self, config: Any, index: int, cached: int) -> None:
        super().__init__()
        self.qk, self.vo, _ = config.layer_sizes[index]
        self.heads, self.kv_heads, self.cached = config.num_attention_heads, config.num_key_value_heads, cached
        self.scale = config.softmax_scale
        d_model = config.hidden_size
        shapes = {
            "q_proj": (d_model, self.heads * self.qk),
            "k_proj": (d_model, self.kv_heads * self.qk),
            "v_proj": (d_model, self.kv_heads * self.vo),
            "o_proj": (self.heads * self.vo, d_model),
        }
        _add_linears(self, shapes, f"model.layers.{index}.self_attn.", config.biases, dropped=not self.vo)
        if self.vo:
            self.inv_freq = nn.Parameter(torch.zeros(self.kv_heads, self.qk // 2), requires_grad=False)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor, cache: Any) -> Tensor:
        """x (batch, tokens, d_model), positions (batch, tokens), mask (batch, 1, tokens, all tokens)."""
        q = self.q_proj(x).unflatten(-1, (self.heads, self.qk)).transpose(1, 2)
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, self.qk)).transpose(1, 2)
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, self.vo)).transpose(1, 2)
        repeats = self.heads // self.kv_heads
        angle = positions[:, None, :, None].float() * self.inv_freq[None, :, None, :].float()
        q, k = _rotated(q, angle.repeat_interleave(repeats, dim=1)), _rotated(k, angle)
        if cache is not None:
            k, v = cache.update(k, v, self.cached)
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        return self.o_proj(z.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, config: Any, index: int) -> None:
        super().__init__()
        d_model, width = config.hidden_size, config.layer_sizes[index][2]
        shapes = {"gate_proj": (d_model, width), "up_proj": (d_model, width), "down_proj": (width, d_model)}
        _add_linears(self, shapes, f"model.layers.{index}.mlp.", config.biases, dropped=not width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class _Layer(nn.Module):
    def __init__(self, config: Any, index: int, cached: int) -> None:
        super().__init__()
        _, vo, width = config.layer_sizes[index]
        self.self_attn = _Attention(config, index, cached)
        self.mlp = _Mlp(config, index)
        if vo:
            self.input_layernorm = _Norm(config.hidden_size, config.rms_norm_eps)
        if width:
            self.post_attention_layernorm = _Norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor, cache: Any) -> Tensor:
        if hasattr(self, "input_layernorm"):
            x = x + self.self_attn(self.input_layernorm(x), positions, mask, cache)
        elif hasattr(self.self_attn, "o_proj"):
            x = x + self.self_attn.o_proj.bias
        if hasattr(self, "post_attention_layernorm"):
            x = x + self.mlp(self.post_attention_layernorm(x))
        elif hasattr(self.mlp, "down_proj"):
            x = x + self.mlp.down_proj.bias
        return x


class _Model(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        cached = [sum(sizes[1] > 0 for sizes in config.layer_sizes[:i]) for i in range(len(config.layer_sizes))]
        self.layers = nn.ModuleList(_Layer(config, i, cached[i]) for i in range(len(config.layer_sizes)))
        self.norm = _Norm(config.hidden_size, config.rms_norm_eps)


class EdgeLevelForCausalLM(PreTrainedModel, GenerationMixin):
    """Runs one level; generates as any model of transformers does."""

    config_class = EdgeLevelConfig
    base_model_prefix = "model"

    def __init__(self, config: EdgeLevelConfig) -> None:
        super().__init__(config)
        self.model = _Model(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """(vocab_size, hidden_size), also the head where the model is tied."""
        return self.model.embed_tokens

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        cache: Any = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """input_ids (batch, tokens); attention_mask (batch, all tokens), 0 where a text is padded."""
        past_key_values = cache if past_key_values is None else past_key_values  # it has two names in transformers 5
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        n_past = 0 if past_key_values is None else past_key_values.get_seq_length()
        n_tokens = input_ids.shape[1]
        rows = torch.arange(n_past, n_past + n_tokens, device=input_ids.device)
        columns = torch.arange(n_past + n_tokens, device=input_ids.device)
        mask = (columns <= rows[:, None])[None, None]
        if attention_mask is not None and attention_mask.dim() == 2:
            # A token of the padding sees itself: attention to nothing would be no number, and spread.
            mask = mask & (attention_mask[:, None, None, : len(columns)] > 0) | (columns == rows[:, None])
            if position_ids is None:
                position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -n_tokens:]
        positions = rows[None] if position_ids is None else position_ids
        x = self.model.embed_tokens(input_ids)
        for layer in self.model.layers:
            x = layer(x, positions, mask, past_key_values)
        weight = self.lm_head.weight if hasattr(self, "lm_head") else self.model.embed_tokens.weight
        logits = F.linear(self.model.norm(x), weight)
        return CausalLMOutputWithPast(logits=logits, **{_CACHE: past_key_values})


def _add_linears(
    module: nn.Module, shapes: dict[str, tuple[int, int]], prefix: str, biases: list[str], *, dropped: bool
) -> None:
    """Adds layers (inputs, outputs) by name, with the biases that there are; of a dropped block the bias alone."""
    for name, (inputs, outputs) in shapes.items():
        bias = f"{prefix}{name}.bias" in biases
        if not dropped:
            module.add_module(name, nn.Linear(inputs, outputs, bias=bias))
        elif bias:
            module.add_module(name, _Bias(outputs))


def _rotated(x: Tensor, angle: Tensor) -> Tensor:
    """x (batch, heads, tokens, 2 * pairs), angle (batch, heads, tokens, pairs)."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
