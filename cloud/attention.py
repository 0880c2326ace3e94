"""Attention of the torch decoder once queries, keys and values are there: causal, in a window, with capped scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgesdk.cloud.families.blocks import Attention

__all__ = ["attend", "attend_last", "softcapped"]


def attend(block: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Outputs (batch, heads, tokens, vo) of tokens that see those before them; q, k, v are shaped like it."""
    n_tokens = q.shape[2]
    whole = block.window is None or block.window >= n_tokens
    if whole and block.softcap is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=block.softmax_scale)
    sees = torch.ones((n_tokens, n_tokens), dtype=torch.bool).tril()
    if block.window is not None:
        sees = sees.triu(1 - block.window)
    return _weighted_values(block, q, k, v, sees)


def attend_last(block: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Outputs (batch, heads, queries, vo) of queries that all belong to the last of the tokens of k and v."""
    n_tokens = k.shape[2]
    first = 0 if block.window is None else max(0, n_tokens - block.window)
    return _weighted_values(block, q, k[:, :, first:], v[:, :, first:], None)


def softcapped(x: Tensor, cap: float | None) -> Tensor:
    """cap * tanh(x / cap): nearly x near 0, within +-cap; None: x."""
    return x if cap is None else cap * torch.tanh(x / cap)


def _weighted_values(block: Attention, q: Tensor, k: Tensor, v: Tensor, sees: Tensor | None) -> Tensor:
    if block.softcap is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=sees, scale=block.softmax_scale)
    scores = softcapped(q @ k.transpose(2, 3) * block.softmax_scale, block.softcap)
    if sees is not None:
        scores = scores.masked_fill(~sees, -torch.inf)
    return scores.softmax(-1) @ v
