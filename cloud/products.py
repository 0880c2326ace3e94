"""How the decoder multiplies, and how others see its inner activations."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["Tap", "multiply", "see"]

Tap = Callable[[str, Tensor], Tensor]
"""Sees (and may replace) inner activations: input, q, k, v, z (batch, tokens, heads, size), hidden, output; of a
state-space mixer dt (batch, tokens, heads), b and c (batch, tokens, groups, state) and states (batch, chunks, heads,
head_dim, state), too."""


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """x weight^T in the weight's dtype, returned in the dtype of x."""
    return (x.to(weight.dtype) @ weight.T).to(x.dtype)


def see(tap: Tap | None, name: str, value: Tensor) -> Tensor:
    """The value, or what the tap makes of it."""
    return value if tap is None else tap(name, value)
