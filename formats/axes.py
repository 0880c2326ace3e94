"""The order of elements along a head axis (SPEC.md section 3): quantum-major, a prefix cuts every head alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["frequency_order", "head_order"]


def head_order(heads: int, size: int, quantum: int, *, paired: bool) -> NDArray[np.int64]:
    """Where each position of the stored axis comes from in the natural (head, element) order.

    heads, size, quantum: as in SPEC.md; paired: the axis is made of RoPE pairs (j, j + size / 2).
    returns (heads * size,) indices into the flattened natural order
    """
    element = np.arange(size)
    if paired:
        step, inner = np.divmod(element, quantum)
        half, pair = np.divmod(inner, quantum // 2)
        element = half * (size // 2) + step * (quantum // 2) + pair
    natural = np.arange(heads)[:, None] * size + element  # (heads, size)
    return natural.reshape(heads, size // quantum, quantum).transpose(1, 0, 2).reshape(-1)


def frequency_order(kv_heads: int, size: int, quantum: int) -> NDArray[np.int64]:
    """Where each stored inverse frequency comes from in the natural (kv_head, pair) order: (kv_heads * size / 2,)."""
    return head_order(kv_heads, size // 2, quantum // 2, paired=False)
