"""The whole engine in NumPy: what an artifact means, written to be read. The oracle for the C++.

`EngineArithmetic` follows kernels/ops.h operation by operation (a fused multiply-add is emulated exactly), so its
logits equal the engine's to the bit: the tolerance between the two is zero. `FloatArithmetic` computes the same model
with the dequantized weights in float64 and without quantizing activations or the cache.

The difference between the two is the noise of int8 activations. Rounding to a step of m / 127, where m is the largest
of a group, errs by m / (127 sqrt(12)) in the root mean square. For groups of 32 values near a normal distribution m is
about 2.4 times their own root mean square: one quantization adds a relative error of EPSILON = 2.4 / (127 sqrt(12)) =
0.55 %. An MLP quantizes twice in a row, an attention block six times (input, query, key, value, weights, output), the
head once. These errors are independent, and each is a part of its block's output, which is only a part of the residual:
with n of them the relative error of the logits in the root mean square is about EPSILON sqrt(n). `activation_tolerance`
allows twice that, for groups with outliers and for what softmax and SiLU amplify.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgesdk.formats import Artifact

Array = NDArray[Any]
f32, f64 = np.float32, np.float64
EPSILON = 2.4 / (127 * math.sqrt(12))
KEY_BLOCK = 64  # keys whose weights share a scale


class Weight(NamedTuple):
    """A weight of a level: its panels side by side."""

    values: Array  # (rows, columns) float32: integers, what the codes stand for
    scales: Array  # (rows, n_groups) float32
    group: int


@dataclass
class Memory:
    """What a model remembers of a text: how many tokens, and by block what the next token needs of them.

    An attention: codes and scales of keys and values, (n_tokens, heads, dims) and (n_tokens, heads) each. A mixer: the
    last inputs of its three convolutions, (conv_kernel - 1, rows in axis order), and its state, (states, heads, dims).
    """

    n_tokens: int = 0
    blocks: dict[str, tuple[Array, ...]] = field(default_factory=dict)


class AttentionRule(NamedTuple):
    """How scores become weights. window: keys that a query sees, softcap: cap of scores; 0: none."""

    softmax_scale: float
    window: int
    softcap: float


class EngineArithmetic:
    """Every operation as kernels/ops.h defines it, in float32 and int8."""

    dtype: Any = f32

    def embed(self, weight: Weight, tokens: Array, factor: float) -> Array:
        scales = np.repeat(weight.scales[tokens], weight.group, axis=1)[:, : weight.values.shape[1]]
        return weight.values[tokens] * scales * f32(factor)

    def rms_norm(self, x: Array, gain: Array, eps: float) -> Array:
        mean = lane_dot(x, x) / f32(x.shape[1])
        return x * (f32(1) / np.sqrt(mean + f32(eps)))[:, None] * gain

    def matmul(self, x: Array, weight: Weight) -> Array:
        """x: (n_tokens, columns) -> (n_tokens, rows)"""
        codes, x_scales = quantize(in_groups(x, weight.group))
        w = in_groups(weight.values, weight.group)
        sums = np.einsum("tgc,rgc->gtr", codes, w, optimize=True)  # integers below 2^24: exact in any order
        y = np.zeros((len(x), len(weight.values)), f32)
        for g in range(sums.shape[0]):
            y = fma(sums[g], weight.scales[None, :, g] * x_scales[:, g, None], y)
        return y

    def rope(self, a: Array, b: Array, angle: Array) -> tuple[Array, Array]:
        cosine, sine = cosine_sine(angle)
        return a * cosine - b * sine, b * cosine + a * sine

    def cached(self, x: Array) -> tuple[Array, Array]:
        """x: (n_tokens, heads, dims) -> codes, and one scale per token and head."""
        largest = np.abs(x).max(axis=-1, keepdims=True)
        scale = np.minimum(largest / f32(127), f32(65504)).astype(np.float16).astype(f32)
        ratio = np.divide(x, scale, out=np.zeros_like(x), where=scale > 0)
        return np.rint(np.clip(ratio, f32(-127), f32(127))), scale[..., 0]

    def attend(self, q: Array, k: Array, k_scale: Array, v: Array, v_scale: Array, rule: AttentionRule) -> Array:
        """q: (queries, qk), k: (n_keys, qk), v: (n_keys, vo) of one key/value head -> (queries, vo)"""
        codes, q_scale = quantize(q[:, None, :])
        scores = (codes[:, 0] @ k.T).astype(f32) * (k_scale * (q_scale * f32(rule.softmax_scale)))
        if rule.softcap:
            scores = edge_softcap(scores, rule.softcap)
        first = max(0, len(k) - rule.window) if rule.window else 0
        scores[:, :first] = -3.4e38  # its exponential is 0
        most = np.full((len(q), 1), -3.4e38, f32)
        lanes, out = np.zeros((len(q), 16), f32), np.zeros((len(q), v.shape[1]), f32)
        for begin in range(first // KEY_BLOCK * KEY_BLOCK, len(k), KEY_BLOCK):
            block = slice(begin, begin + KEY_BLOCK)
            found = np.maximum(most, scores[:, block].max(axis=1, keepdims=True))
            factor, most = edge_exp(most - found), found
            e = edge_exp(scores[:, block] - most)
            lanes = lanes * factor
            for part in np.split(np.pad(e, ((0, 0), (0, -e.shape[1] % 16))), -(-e.shape[1] // 16), axis=1):
                lanes = lanes + part
            w = e * v_scale[block]
            heaviest = w.max(axis=1, keepdims=True)
            inverse = np.divide(f32(255), heaviest, out=np.zeros_like(heaviest), where=heaviest >= f32(1e-30))
            products = (np.rint(w * inverse) @ v[block]).astype(f32)  # integers below 2^24: exact in any order
            out = fma(products, np.broadcast_to(heaviest / f32(255), out.shape), out * factor)
        return out * (f32(1) / lane_dot(lanes, np.ones_like(lanes)))[:, None]

    def silu_mul(self, gate: Array, up: Array) -> Array:
        return gate / (f32(1) + edge_exp(-gate)) * up

    def gelu_mul(self, gate: Array, up: Array) -> Array:
        slope = fma(gate * gate, np.full_like(gate, -0.071354816), np.full_like(gate, -1.5957691))
        return gate / (f32(1) + edge_exp(slope * gate)) * up

    def softcap(self, x: Array, cap: float) -> Array:
        return edge_softcap(x, cap)


class FloatArithmetic:
    """The same model in float64: dequantized weights, activations as they are."""

    dtype: Any = f64

    def embed(self, weight: Weight, tokens: Array, factor: float) -> Array:
        return dequantized(weight)[tokens] * factor

    def rms_norm(self, x: Array, gain: Array, eps: float) -> Array:
        return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + eps) * gain

    def matmul(self, x: Array, weight: Weight) -> Array:
        return x @ dequantized(weight).T

    def rope(self, a: Array, b: Array, angle: Array) -> tuple[Array, Array]:
        return a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)

    def cached(self, x: Array) -> tuple[Array, Array]:
        return x, np.ones(x.shape[:-1])

    def attend(self, q: Array, k: Array, k_scale: Array, v: Array, v_scale: Array, rule: AttentionRule) -> Array:
        first = max(0, len(k) - rule.window) if rule.window else 0
        k, v = k[first:], v[first:]
        scores = q @ k.T * rule.softmax_scale
        scores = self.softcap(scores, rule.softcap) if rule.softcap else scores
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True) @ v

    def silu_mul(self, gate: Array, up: Array) -> Array:
        return gate / (1 + np.exp(-gate)) * up

    def gelu_mul(self, gate: Array, up: Array) -> Array:
        return gate * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) * up

    def softcap(self, x: Array, cap: float) -> Array:
        return cap * np.tanh(x / cap)


class ReferenceModel:
    """One level of an artifact.

    Example:
        ReferenceModel("model.edge", level=0).logits([1, 2, 3])  # (3, vocab_size)
    """

    def __init__(self, path: str | Path, level: int, *, float_activations: bool = False) -> None:
        self.artifact = Artifact.open(path)
        self.level = self.artifact.level(level)
        self.model: Mapping[str, Any] = self.artifact.edge["model"]
        self.arithmetic: EngineArithmetic | FloatArithmetic = (
            FloatArithmetic() if float_activations else EngineArithmetic()
        )

    def logits(self, tokens: Sequence[int], memory: Memory | None = None) -> Array:
        """Logits behind every token: (n_tokens, vocab_size). They follow those of `memory`, and join them there."""
        model, ops = self.model, self.arithmetic
        self.memory = Memory() if memory is None else memory
        embed = self.weight("embed")
        x = ops.embed(embed, np.asarray(tokens), model["embedding_scale"]).astype(ops.dtype)
        for block, kept in zip(model["blocks"], self.level.allocation, strict=True):
            name = block["name"]
            bias = self.vector(f"{name}.bias")
            if min(kept) == 0:  # the block is dropped: it adds only its bias
                x = x + bias if bias.size else x
                continue
            normed = ops.rms_norm(x, self.vector(f"{name}.norm"), model["norm_eps"])
            y = self._block(block, kept, normed)
            y = y + bias if bias.size else y
            if block.get("post_norm"):
                y = ops.rms_norm(y, self.vector(f"{name}.post_norm"), model["norm_eps"])
            x = x + y
        self.memory.n_tokens += len(tokens)
        normed = ops.rms_norm(x, self.vector("norm"), model["norm_eps"])
        logits = ops.matmul(normed, embed if model["tied_head"] else self.weight("head"))
        return ops.softcap(logits, model["logit_softcap"]) if "logit_softcap" in model else logits

    def resize(self, memory: Memory) -> None:
        """Makes another level's memory one of this level: prefixes of what it had, zeros for what it lacks."""
        for block, kept in zip(self.model["blocks"], self.level.allocation, strict=True):
            had = memory.blocks.pop(block["name"], None)
            if min(kept) == 0 or block["kind"] == "mlp" or memory.n_tokens == 0:
                continue
            if block["kind"] == "attention":
                sizes = [(memory.n_tokens, block["n_kv_heads"], dims) for dims in kept]
                shapes = [sizes[0], sizes[0][:2], sizes[1], sizes[1][:2]]
            else:
                rows = (block["n_heads"] * kept[1], block["n_groups"] * kept[0], block["n_groups"] * kept[0])
                shapes = [(block["conv_kernel"] - 1, n) for n in rows] + [(kept[0], block["n_heads"], kept[1])]
            parts = had or [np.zeros(shape, self.arithmetic.dtype) for shape in shapes]
            memory.blocks[block["name"]] = tuple(fitted(*pair) for pair in zip(parts, shapes, strict=True))

    def activation_tolerance(self) -> float:
        """Largest relative error (root mean square over all logits) that int8 activations and cache explain."""
        n = 1
        for block, kept in zip(self.model["blocks"], self.level.allocation, strict=True):
            n += 0 if min(kept) == 0 else 6 if block["kind"] == "attention" else 2
        return 2 * EPSILON * math.sqrt(n)

    def _block(self, block: Mapping[str, Any], kept: tuple[int, ...], x: Array) -> Array:
        if block["kind"] == "ssm":
            from reference_ssm import mixer  # which is made of what this module defines

            return mixer(self, block, kept, x)
        return self._attention(block, x) if block["kind"] == "attention" else self._mlp(block, x)

    def _mlp(self, block: Mapping[str, Any], x: Array) -> Array:
        ops, name = self.arithmetic, block["name"]
        up = ops.matmul(x, self.weight(f"{name}.up"))
        if not block["gated"]:
            up = np.maximum(up + self.vector(f"{name}.up.bias") if "up" in block["row_bias"] else up, 0)
            return ops.matmul(up * up, self.weight(f"{name}.down"))
        gate = ops.matmul(x, self.weight(f"{name}.gate"))
        gate = gate + self.vector(f"{name}.gate.bias") if "gate" in block["row_bias"] else gate
        up = up + self.vector(f"{name}.up.bias") if "up" in block["row_bias"] else up
        activate = {"silu": ops.silu_mul, "gelu_tanh": ops.gelu_mul}[block["activation"]]
        return ops.matmul(activate(gate, up), self.weight(f"{name}.down"))

    def _attention(self, block: Mapping[str, Any], x: Array) -> Array:
        ops, name = self.arithmetic, block["name"]
        heads, kv_heads = block["n_heads"], block["n_kv_heads"]
        qk_quantum, vo_quantum = (block["axes"][axis][1] for axis in ("qk", "vo"))
        inv_freq = self.vector(f"{name}.inv_freq").astype(f64).reshape(-1, kv_heads, qk_quantum // 2)
        q, k, v = (ops.matmul(x, self.weight(f"{name}.{role}")) for role in "qkv")
        q = q + self.vector(f"{name}.q.bias") if "q" in block["row_bias"] else q
        k = k + self.vector(f"{name}.k.bias") if "k" in block["row_bias"] else k
        if block.get("qk_norm"):  # one quantum: the axis is head-major
            q, k = (
                ops.rms_norm(
                    rows.reshape(-1, qk_quantum), self.vector(f"{name}.{role}_norm"), self.model["norm_eps"]
                ).reshape(rows.shape)
                for role, rows in (("q", q), ("k", k))
            )
        rule = AttentionRule(block["softmax_scale"], block.get("window", 0), block.get("softcap", 0))
        q = self._turned(q, heads, qk_quantum, np.repeat(inv_freq, heads // kv_heads, axis=1))
        k, v = self._turned(k, kv_heads, qk_quantum, inv_freq), head_major(v, kv_heads, vo_quantum)
        made = ops.cached(k) + ops.cached(v)
        before = self.memory.blocks.get(name, tuple(part[:0] for part in made))
        k, k_scale, v, v_scale = self.memory.blocks[name] = tuple(map(np.concatenate, zip(before, made, strict=True)))
        first = self.memory.n_tokens
        z = np.empty((len(x), heads, v.shape[2]), ops.dtype)
        for t in range(len(x)):
            for g in range(kv_heads):
                own = slice(g * heads // kv_heads, (g + 1) * heads // kv_heads)
                past = [part[: first + t + 1, g] for part in (k, k_scale, v, v_scale)]
                z[t, own] = ops.attend(q[t, own], *past, rule)
        return ops.matmul(axis_order(z, vo_quantum), self.weight(f"{name}.o"))

    def _turned(self, x: Array, heads: int, quantum: int, inv_freq: Array) -> Array:
        """x: (n_tokens, axis order); inv_freq: (steps, heads, quantum / 2) -> (n_tokens, heads, dims)"""
        steps = x.reshape(len(x), -1, heads, quantum)
        positions = np.arange(self.memory.n_tokens, self.memory.n_tokens + len(x), dtype=f64)
        angle = positions[:, None, None, None] * inv_freq
        a, b = self.arithmetic.rope(steps[..., : quantum // 2], steps[..., quantum // 2 :], angle)
        return head_major(np.concatenate([a, b], axis=-1).reshape(x.shape), heads, quantum)

    def vector(self, name: str) -> Array:
        """A float vector of the level."""
        return self.artifact.vector(name, self.level.index).astype(self.arithmetic.dtype)

    def weight(self, name: str) -> Weight:
        """A packed weight of the level."""
        pieces = self.artifact.pieces(name, self.level.index)
        boxes = [self.artifact.edge["panels"][piece] for piece in pieces]
        rows, columns, group = max(b[1] for b in boxes), max(b[3] for b in boxes), boxes[0][5]
        values = np.full((rows, columns), np.nan, f32)
        scales = np.full((rows, -(-columns // group)), np.nan, f32)
        for piece, (row, row_end, column, column_end, *_) in zip(pieces, boxes, strict=True):
            values[row:row_end, column:column_end], part = self.artifact.panel(piece)
            scales[row:row_end, column // group : column // group + part.shape[1]] = part
        return Weight(values, scales, group)


def head_major(x: Array, heads: int, quantum: int) -> Array:
    """(n_tokens, axis order) -> (n_tokens, heads, dims): r of a head is in step r // quantum (SPEC.md 3)"""
    return x.reshape(len(x), -1, heads, quantum).transpose(0, 2, 1, 3).reshape(len(x), heads, -1)


def axis_order(x: Array, quantum: int) -> Array:
    """(n_tokens, heads, dims) -> (n_tokens, axis order)"""
    return x.reshape(*x.shape[:2], -1, quantum).transpose(0, 2, 1, 3).reshape(len(x), -1)


def fitted(x: Array, shape: tuple[int, ...]) -> Array:
    """The beginning of x along every axis, filled up with zeros."""
    cut = x[tuple(slice(n) for n in shape)]
    return np.pad(cut, [(0, n - have) for n, have in zip(shape, cut.shape, strict=True)])


def dequantized(weight: Weight) -> Array:
    wide = np.repeat(weight.scales, weight.group, axis=1)[:, : weight.values.shape[1]]
    return weight.values.astype(f64) * wide


def in_groups(x: Array, group: int) -> Array:
    """(rows, columns) -> (rows, n_groups, group); the last group is filled up with zeros"""
    return np.pad(x, ((0, 0), (0, -x.shape[1] % group))).reshape(len(x), -1, group)


def quantize(x: Array) -> tuple[Array, Array]:
    """x: (n_tokens, n_groups, group) -> integers within +-127, and scales (n_tokens, n_groups)"""
    largest = np.abs(x).max(axis=2)
    inverse = np.divide(f32(127), largest, out=np.zeros_like(largest), where=largest >= f32(1e-30))
    return np.rint(x * inverse[..., None]), largest / f32(127)


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c rounded once to float32.

    The product of two float32 is exact in float64. The sum is rounded to odd there (its error is known exactly), which
    keeps the second rounding, to float32, from going wrong at a tie (Boldo and Melquiond 2008).
    """
    product = a.astype(f64) * b
    total = product + c
    c_part = total - product
    error = (product - (total - c_part)) + (c - c_part)
    even = (error != 0) & (np.ascontiguousarray(total).view(np.int64) & 1 == 0)
    total[even] = np.nextafter(total[even], np.copysign(np.inf, error[even]))
    return total.astype(f32)


def lane_dot(a: Array, b: Array) -> Array:
    """Sum of products along the last axis by the 16-lane rule."""
    a, b = np.broadcast_arrays(a, b)
    width = [(0, 0)] * (a.ndim - 1) + [(0, -a.shape[-1] % 16)]
    a, b = (np.pad(x, width).reshape(*x.shape[:-1], -1, 16) for x in (a, b))
    lanes = np.zeros((*a.shape[:-2], 16), f32)
    for i in range(a.shape[-2]):
        lanes = fma(a[..., i, :], b[..., i, :], lanes)
    for step in (8, 4, 2, 1):
        lanes = lanes[..., :step] + lanes[..., step:]
    return lanes[..., 0]


def edge_exp(x: Array) -> Array:
    """kernels/exp.h: x = n ln 2 + r, and a polynomial for e^r."""
    clamped = np.clip(x, f32(-87.3), f32(88.35))
    magic = f32(12582912)
    n = fma(clamped, f32(float.fromhex("0x1.715476p+0")), np.full_like(x, magic)) - magic
    r = fma(n, f32(0.00021219444), fma(n, f32(-0.693359375), clamped))
    q = np.full_like(x, float.fromhex("0x1.6a23d0p-10"))
    for digit in ("0x1.123a20p-7", "0x1.5558f2p-5", "0x1.555492p-3", "0x1.fffffcp-2"):
        q = fma(q, r, np.full_like(x, float.fromhex(digit)))
    y = fma(q, r * r, r) + f32(1)
    return np.where(x < f32(-87.3), f32(0), np.ldexp(y, n.astype(np.int32)).astype(f32))


def edge_softcap(x: Array, cap: float) -> Array:
    """kernels/exp.h: cap tanh(x / cap) = cap (1 - 2 / (1 + e^(2 x / cap)))."""
    e = edge_exp(x * (f32(2) / f32(cap)))
    return f32(cap) * (f32(1) - f32(2) / (f32(1) + e))


def cosine_sine(angle: Array) -> tuple[Array, Array]:
    """The engine's own cosine and sine (rope_angles.cpp): Taylor series in float64 around the nearest quadrant."""
    quadrant = np.rint(angle * 0.63661977236758134308)
    r = (angle - quadrant * 1.57079632673412561417) - quadrant * 6.07710050650619224932e-11
    r2 = r * r
    s, c = np.full_like(r, -1.0 / 39916800), np.full_like(r, 1.0 / 479001600)
    for n in (362880, -5040, 120, -6):
        s = s * r2 + 1.0 / n
    for n in (-3628800, 40320, -720, 24, -2):
        c = c * r2 + 1.0 / n
    s, c = r + r * r2 * s, 1.0 + r2 * c
    turn = quadrant.astype(np.int64) & 3
    return np.choose(turn, [c, -s, -c, s]).astype(f32), np.choose(turn, [s, c, -s, -c]).astype(f32)
