"""A level as torch modules that exporters trace: plain operations, fixed caches of keys and values.

Both decoders compute the same; they differ in where caches live. Shapes: T tokens of one text, C tokens of context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgesdk.cloud.workdir import as_tensor
from edgesdk.formats.exports.level_model import LayerSizes, LevelModel
from edgesdk.formats.exports.natural import Floats

__all__ = ["BufferedDecoder", "FunctionalDecoder"]

_COLUMN_MULTIPLE = 32  # of what linear layers read: groups of a quantizer; zeros fill up
_UNSEEN = -1e9  # added to the scores of tokens that are not seen: finite, since 0 * inf is no number

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries (1, T, n_heads, qk), new keys (1, T, n_kv_heads, qk) and values (.., vo) to outputs (1, T, n_heads, vo)."""


class _Norm(nn.Module):
    """RMSNorm over the last axis."""

    def __init__(self, gain: Floats, eps: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(as_tensor(gain), requires_grad=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.gain


class _ByteEmbedding(nn.Module):
    """Rows of 8 bits with a scale each: tokens (1, T) -> (1, T, d_model)."""

    codes: Tensor
    scales: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        scales = table.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        self.register_buffer("codes", torch.round(table / scales).to(torch.int8))
        self.register_buffer("scales", scales)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.codes).to(torch.float32) * F.embedding(tokens, self.scales)


class _Constant(nn.Module):
    """What is left of a block that the level drops: its bias, added to (1, T, d_model)."""

    def __init__(self, bias: Floats | None) -> None:
        super().__init__()
        self.bias = None if bias is None else nn.Parameter(as_tensor(bias), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.bias is None else x + self.bias


class _Mlp(nn.Module):
    """x + down(silu(gate(norm(x))) * up(norm(x))); x: (1, T, d_model)."""

    def __init__(self, weights: Mapping[str, Floats], eps: float) -> None:
        super().__init__()
        self.norm = _Norm(weights["norm"], eps)
        width = -(-len(weights["gate"]) // _COLUMN_MULTIPLE) * _COLUMN_MULTIPLE
        self.gate = _linear(weights["gate"], weights.get("gate_bias"), rows=width)
        self.up = _linear(weights["up"], weights.get("up_bias"), rows=width)
        self.down = _linear(weights["down"], weights.get("bias"), columns=width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x)
        return x + self.down(F.silu(self.gate(hidden)) * self.up(hidden))


class _Attention(nn.Module):
    """Grouped-query attention at the sizes of a level; every key/value head turns by its own frequencies.

    The softmax scale is a part of the query weights.
    """

    def __init__(self, model: LevelModel, weights: Mapping[str, Floats], sizes: LayerSizes) -> None:
        super().__init__()
        self.heads, self.group, self.sizes = model.n_kv_heads, model.n_heads // model.n_kv_heads, sizes
        self.norm = _Norm(weights["norm"], model.norm_eps)
        query_bias = weights.get("q_bias")
        scale = model.softmax_scale
        self.q = _linear(weights["q"] * scale, None if query_bias is None else query_bias * scale)
        self.k = _linear(weights["k"], weights.get("k_bias"))
        self.v = _linear(weights["v"], None)
        inner = model.n_heads * sizes.vo
        self.padding = -inner % _COLUMN_MULTIPLE
        self.o = _linear(weights["o"], weights.get("bias"), columns=inner + self.padding)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """x (1, T, d_model); cos, sin (T, n_kv_heads * qk / 2)."""
        n_tokens = x.shape[1]
        hidden = self.norm(x)
        qk, vo = self.sizes.qk, self.sizes.vo
        turn = (cos.view(1, n_tokens, self.heads, 1, qk // 2), sin.view(1, n_tokens, self.heads, 1, qk // 2))
        q = _rotated(self.q(hidden).view(1, n_tokens, self.heads, self.group, qk), *turn)
        k = _rotated(self.k(hidden).view(1, n_tokens, self.heads, 1, qk), *turn)
        v = self.v(hidden).view(1, n_tokens, self.heads, vo)
        z = attend(q.view(1, n_tokens, -1, qk), k.view(1, n_tokens, -1, qk), v).reshape(1, n_tokens, -1)
        return x + self.o(F.pad(z, (0, self.padding)) if self.padding else z)


class _Decoder(nn.Module):
    """The layers, and a run through them; caches are the subclasses' matter."""

    frequencies: Tensor  # of all layers that have caches, one behind the other
    places: Tensor  # 0 .. context - 1

    def __init__(self, model: LevelModel, context: int) -> None:
        super().__init__()
        self.context = context
        self.cached = [sizes for sizes in model.layers if sizes.vo]  # layers that have keys and values
        self.n_kv_heads = model.n_kv_heads
        embedding = as_tensor(model.embedding)
        self.embedding: nn.Embedding | _ByteEmbedding = nn.Embedding.from_pretrained(embedding)
        self.attentions, self.mlps = nn.ModuleList(), nn.ModuleList()
        frequencies = []
        for index, sizes in enumerate(model.layers):
            weights, mlp = model.attention(index), model.mlp(index)
            self.attentions.append(_Attention(model, weights, sizes) if sizes.vo else _Constant(weights.get("bias")))
            self.mlps.append(_Mlp(mlp, model.norm_eps) if sizes.width else _Constant(mlp.get("bias")))
            if sizes.vo:
                frequencies.append(as_tensor(weights["inv_freq"].reshape(-1)))
        self.pairs = [len(one) for one in frequencies]
        self.register_buffer("frequencies", torch.cat([torch.zeros(0), *frequencies]), persistent=False)
        self.register_buffer("places", torch.arange(context), persistent=False)
        self.norm = _Norm(model.norm, model.norm_eps)
        self.head = _linear(model.head, None)
        if model.tied_head:
            self.head.weight = self.embedding.weight

    def round_embedding(self) -> None:
        """Embedding rows to 8 bits; a tied head keeps its weights, for a quantizer of linear layers."""
        if isinstance(self.embedding, nn.Embedding):
            self.embedding = _ByteEmbedding(self.embedding.weight)

    def run(self, tokens: Tensor, positions: Tensor, attends: list[Attend]) -> Tensor:
        """tokens (1, T), positions (T,), attends: of the layers that have caches -> logits, (1, 1, vocab_size)."""
        x = self.embedding(tokens)
        angle = positions.to(torch.float32)[:, None] * self.frequencies
        cosines, sines = torch.cos(angle).split(self.pairs, 1), torch.sin(angle).split(self.pairs, 1)
        turn = 0
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            if isinstance(attention, _Attention):
                x = attention(x, cosines[turn], sines[turn], attends[turn])
                turn += 1
            else:
                x = attention(x)
            x = mlp(x)
        return self.head(self.norm(x[:, -1:]))

    def mask(self, positions: Tensor) -> Tensor:
        """What is added to scores, (T, C): a token sees those up to its own position."""
        return torch.where(self.places[None, :] <= positions[:, None], 0.0, _UNSEEN)


class BufferedDecoder(_Decoder):
    """Keeps keys and values in buffers of its own: forward(tokens (1, T), positions (T,)) -> logits (1, 1, vocab_size).

    positions: those of the tokens, ascending by 1; a text begins at 0, and what stands behind it is not seen
    fused: attention and cache by ExecuTorch's operators `llama::custom_sdpa` and `update_cache`, which must be loaded;
    they read no more of the cache than is filled, but want heads of one size: smaller ones are filled up
    """

    def __init__(self, model: LevelModel, context: int, *, fused: bool = False) -> None:
        super().__init__(model, context)
        self.fused = fused
        for index, sizes in enumerate(self.cached):
            for name, size in (("keys", sizes.qk), ("values", sizes.vo)):
                heads = model.n_kv_heads
                whole = (1, context, heads, max(sizes.qk, sizes.vo)) if fused else (1, heads, context, size)
                self.register_buffer(f"{name}_{index}", torch.zeros(whole))

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """See the class."""
        n_caches = len(self.cached)
        if self.fused:
            start = self._start(positions)
            return self.run(tokens, positions, [self._fused(index, start) for index in range(n_caches)])
        mask = self.mask(positions)
        return self.run(tokens, positions, [self._plain(index, positions, mask) for index in range(n_caches)])

    def _start(self, positions: Tensor) -> int:
        start = int(positions[0].item())
        torch._check(start >= 0)
        torch._check(start < self.context)
        torch._check(start + positions.shape[0] <= self.context)
        return start

    def _plain(self, index: int, positions: Tensor, mask: Tensor) -> Attend:
        keys, values = self.get_buffer(f"keys_{index}"), self.get_buffer(f"values_{index}")

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys[:, :, positions] = k.transpose(1, 2)
            values[:, :, positions] = v.transpose(1, 2)
            return _attention(q, keys, values, mask)

        return attend

    def _fused(self, index: int, start: int) -> Attend:
        keys, values = self.get_buffer(f"keys_{index}"), self.get_buffer(f"values_{index}")
        size, vo = keys.shape[-1], self.cached[index].vo

        def filled(x: Tensor) -> Tensor:
            return F.pad(x, (0, size - x.shape[-1])) if x.shape[-1] < size else x

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            torch.ops.llama.update_cache(filled(k), keys, start)
            torch.ops.llama.update_cache(filled(v), values, start)
            z = torch.ops.llama.custom_sdpa(filled(q), keys, values, start, None, 0.0, True, 1.0)
            return z[..., :vo] if vo < size else z

        return attend


Place = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A cache (1, C, heads, size), new rows (1, T, heads, size), their positions (T,) to the cache with them in it."""


class FunctionalDecoder(_Decoder):
    """Gets and returns keys and values: forward(tokens (1, T), input_pos (T,), kv_cache) -> {kv_cache, logits}.

    kv_cache: k_0, v_0, k_1 ... of the layers that have them, (1, C, n_kv_heads, size); input_pos: as in BufferedDecoder
    logits (1, 1, vocab_size) are there for T = 1 alone: what comes in larger parts is followed by more
    place: puts new rows into a cache; names of inputs and outputs are those of LiteRT's generative models
    """

    def __init__(self, model: LevelModel, context: int, *, place: Place | None = None) -> None:
        super().__init__(model, context)
        self.place = _copied if place is None else place

    def forward(self, tokens: Tensor, input_pos: Tensor, kv_cache: dict[str, Tensor]) -> dict[str, Any]:
        """See the class."""
        out: dict[str, Tensor] = {}
        mask = self.mask(input_pos)

        def attend_in(index: int) -> Attend:
            def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                names = (f"k_{index}", f"v_{index}")
                for name, rows in zip(names, (k, v), strict=True):
                    out[name] = self.place(kv_cache[name], rows, input_pos)
                keys, values = (out[name].transpose(1, 2) for name in names)
                return _attention(q, keys, values, mask)

            return attend

        logits = self.run(tokens, input_pos, [attend_in(index) for index in range(len(self.cached))])
        return {"kv_cache": out, "logits": logits} if tokens.shape[1] == 1 else {"kv_cache": out}

    def empty_caches(self) -> dict[str, Tensor]:
        """Caches of a text that has not begun."""
        sizes: dict[str, int] = {}
        for index, layer in enumerate(self.cached):
            sizes |= {f"k_{index}": layer.qk, f"v_{index}": layer.vo}
        return {name: torch.zeros(1, self.context, self.n_kv_heads, size) for name, size in sizes.items()}


def _copied(cache: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
    return cache.index_copy(1, positions.long(), rows)


def _attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """q (1, T, n_heads, qk), keys and values (1, n_kv_heads, C, size), mask (T, C) -> (1, T, n_heads, vo)."""
    _, n_tokens, n_heads, qk = q.shape
    kv_heads, group, vo = keys.shape[1], n_heads // keys.shape[1], values.shape[-1]
    queries = q.view(1, n_tokens, kv_heads, group, qk).permute(0, 2, 3, 1, 4).reshape(1, kv_heads, group * n_tokens, qk)
    scores = queries @ keys.transpose(2, 3)
    shares = F.softmax(scores.view(1, kv_heads, group, n_tokens, -1) + mask, dim=-1)
    z = shares.view(1, kv_heads, group * n_tokens, -1) @ values
    return z.view(1, kv_heads, group, n_tokens, vo).permute(0, 3, 1, 2, 4).reshape(1, n_tokens, n_heads, vo)


def _linear(weight: Floats, bias: Floats | None, *, rows: int = 0, columns: int = 0) -> nn.Linear:
    """A linear layer whose heads are one behind the other, filled up with zeros to rows x columns.

    weight: (..., d_model) with heads in front, or (d_model, ...) where `columns` is given
    """
    matrix = as_tensor(weight).flatten(1) if columns else as_tensor(weight).reshape(-1, weight.shape[-1])
    n_rows, n_columns = matrix.shape
    matrix = F.pad(matrix, (0, max(0, columns - n_columns), 0, max(0, rows - n_rows)))
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(matrix, requires_grad=False)
    if bias is not None:
        flat = as_tensor(bias).reshape(-1)
        layer.bias = nn.Parameter(F.pad(flat, (0, max(0, rows - len(flat)))), requires_grad=False)
    return layer


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs (j, j + size / 2) of the last axis, turned."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
