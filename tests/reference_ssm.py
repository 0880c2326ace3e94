"""The oracle's Mamba-2 mixer (SPEC.md 9): as the engine computes it, every float operation in order, and in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from reference_model import Array, ReferenceModel, axis_order, edge_exp, f32, f64, fma, head_major, lane_dot

__all__ = ["mixer"]

ATANH_TERMS = 11


def mixer(model: ReferenceModel, block: Mapping[str, Any], kept: tuple[int, ...], x: Array) -> Array:
    """The block's output without its bias; x: (n_tokens, d_model), normed."""
    ops, name, dtype = model.arithmetic, block["name"], model.arithmetic.dtype
    heads, groups, taps = block["n_heads"], block["n_groups"], block["conv_kernel"]
    (_, state_quantum), (full, head_quantum) = block["axes"]["state"], block["axes"]["head"]
    head = kept[1]
    exact = dtype is f64
    shapes = {"z": (heads, head_quantum), "x": (heads, head_quantum)}
    shapes |= dict.fromkeys(("b", "c"), (groups, state_quantum))
    made = {}
    kept_rows = {"x": heads * head, "b": groups * kept[0], "c": groups * kept[0]}
    nothing = [np.zeros((taps - 1, n), dtype) for n in kept_rows.values()] + [np.zeros((kept[0], heads, head), dtype)]
    *pasts, state = model.memory.blocks.get(name, nothing)
    past = dict(zip(kept_rows, pasts, strict=True))
    for role, shape in shapes.items():
        rows = ops.matmul(x, model.weight(f"{name}.{role}"))
        rows = rows + model.vector(f"{name}.{role}.bias") if role in block["row_bias"] else rows
        if role != "z":
            rows = np.concatenate([past[role], rows])
            past[role] = rows[len(x) :]
            rows = convolved(rows, model.vector(f"{name}.{role}.conv").reshape(-1, taps + 1), exact)
        made[role] = head_major(rows, *shape)
    w = model.vector(f"{name}.dt").reshape(heads, -1)
    raw = x @ w.T if exact else lane_dot(x[:, None], w[None])
    dt = softplus(raw + model.vector(f"{name}.dt.bias"), exact)
    least, most = block["step_limits"]
    dt = np.clip(dt, dtype(least), None if most is None else dtype(most))
    decay = (np.exp if exact else edge_exp)(dt * model.vector(f"{name}.a"))
    state = state.copy()
    y = scan(made["x"], dt, decay, made["b"], made["c"], model.vector(f"{name}.d"), state, exact)
    model.memory.blocks[name] = (*past.values(), state)
    gated = ops.silu_mul(made["z"], y).reshape(len(x), block["norm_groups"], -1)
    gain = head_major(model.vector(f"{name}.gain")[None], heads, head_quantum).reshape(block["norm_groups"], -1)
    gain = gain * dtype(np.sqrt(full / head))
    eps = dtype(model.model["norm_eps"]) * (dtype(head) / dtype(full))
    hidden = np.stack([ops.rms_norm(gated[:, i], gain[i], eps) for i in range(len(gain))], axis=1)
    hidden = axis_order(hidden.reshape(len(x), heads, head), head_quantum)
    return ops.matmul(hidden, model.weight(f"{name}.out"))


def convolved(x: Array, taps: Array, exact: bool) -> Array:
    """x: (kernel - 1 + n_tokens, rows) in axis order; taps: (rows, kernel + 1), oldest first, the bias last

    Returns silu of the sums, (n_tokens, rows).
    """
    kernel = taps.shape[1] - 1
    shape = (len(x) - kernel + 1, x.shape[1])
    total = np.broadcast_to(taps[:, kernel], shape)
    for i in range(kernel):
        total = fused(exact)(np.broadcast_to(taps[:, i], shape), x[i : i + shape[0]], total)
    return total / (1 + np.exp(-total)) if exact else total / (f32(1) + edge_exp(-total))


def scan(x: Array, dt: Array, decay: Array, b: Array, c: Array, skip: Array, state: Array, exact: bool) -> Array:
    """x: (n_tokens, heads, dims); dt, decay: (n_tokens, heads); b, c: (n_tokens, groups, states) -> y like x

    state: (states, heads, dims); it goes on.
    """
    b, c = (np.repeat(v, x.shape[1] // v.shape[1], axis=1) for v in (b, c))
    y = np.empty_like(x)

    def wide(per_head: Array) -> Array:
        return np.broadcast_to(per_head[:, None], x.shape[1:])

    for t in range(len(x)):
        moved, total = dt[t, :, None] * x[t], np.zeros(x.shape[1:], x.dtype)
        for n in range(len(state)):
            state[n] = fused(exact)(moved, wide(b[t, :, n]), state[n] * decay[t, :, None])
            total = fused(exact)(state[n], wide(c[t, :, n]), total)
        y[t] = fused(exact)(wide(skip), x[t], total)
    return y


def softplus(x: Array, exact: bool) -> Array:
    """kernels/softplus.h"""
    if exact:
        return np.logaddexp(x, 0)
    e = edge_exp(-np.abs(x)).astype(f64)
    s = e / (2.0 + e)
    series = np.full_like(s, 1.0 / (2 * ATANH_TERMS - 1))
    for k in range(2 * ATANH_TERMS - 3, 0, -2):
        series = series * (s * s) + 1.0 / k
    return np.where(x > f32(20), x, np.maximum(x, f32(0)) + (2.0 * (s * series)).astype(f32))


def fused(exact: bool) -> Callable[[Array, Array, Array], Array]:
    return (lambda a, b, c: a * b + c) if exact else fma
