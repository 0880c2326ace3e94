"""The Mamba-2 mixer in torch: its weights, their cuts, and the state-space scan in chunks and step by step.

Source: Dao and Gu 2024 (arXiv 2405.21060), the scan after its section 6; names of checkpoints as transformers has them.

Natural order of the weights: z and x (n_heads, head_dim, d_model), b and c (n_groups, state, d_model), dt (n_heads,
d_model), out (d_model, n_heads, head_dim); x_conv, b_conv, c_conv like x, b, c with taps, oldest first, and the bias in
place of d_model; z_bias .. c_bias without d_model; dt_bias, a (below 0), d (n_heads,); gain (n_heads, head_dim).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgesdk.cloud.families.blocks import Ssm
from edgesdk.cloud.products import Tap, multiply, see

__all__ = ["CHUNK_TOKENS", "SsmState", "load_ssm", "mask_ssm", "run_ssm", "scan", "slice_ssm", "step_ssm"]

CHUNK_TOKENS = 64
_INNER = ("x", "b", "c")
_HEAD_ROWS = ("z", "x", "z_bias", "x_bias", "x_conv", "gain")
_STATE_ROWS = ("b", "c", "b_bias", "c_bias", "b_conv", "c_conv")


def load_ssm(block: Ssm, read: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A block's weights in natural order; read: the checkpoint's tensors by role of `sources`, float32."""
    head, state = (block.n_heads, block.head_dim), (block.n_groups, block.state_size)
    rows = block.in_rows
    shapes = {"z": head, "x": head, "b": state, "c": state}
    weights = {"norm": read["norm"], "d": read["d"], "dt_bias": read["dt_bias"], "gain": read["gain"].reshape(head)}
    *parts, weights["dt"] = read["in"].split(rows)
    for (role, shape), part in zip(shapes.items(), parts, strict=True):
        weights[role] = part.reshape(*shape, -1)
    if "in_bias" in read:
        *biases, dt_bias = read["in_bias"].split(rows)
        weights["dt_bias"] = weights["dt_bias"] + dt_bias
        for (role, shape), part in zip(shapes.items(), biases, strict=True):
            weights[f"{role}_bias"] = part.reshape(shape)
    bias = read.get("conv_bias", torch.zeros(len(read["conv"])))
    taps = torch.cat([read["conv"][:, 0], bias[:, None]], dim=1)
    for role, part in zip(_INNER, taps.split(rows[1:4]), strict=True):
        weights[f"{role}_conv"] = part.reshape(*shapes[role], -1)
    weights["a"] = -read["a_log"].double().exp().float()
    weights["out"] = read["out"].reshape(-1, *head)
    if "out_bias" in read:
        weights["bias"] = read["out_bias"]
    return weights


def slice_ssm(weights: Mapping[str, Tensor], kept: Sequence[int]) -> dict[str, Tensor]:
    """The weights at a level that keeps `kept` elements of each state and of each head."""
    state, head = kept
    out = dict(weights)
    out |= {name: weights[name][:, :head] for name in _HEAD_ROWS if name in weights}
    out |= {name: weights[name][:, :state] for name in _STATE_ROWS if name in weights}
    out["out"] = weights["out"][:, :, :head]
    return out


def mask_ssm(weights: Mapping[str, Tensor], kept: Sequence[int]) -> dict[str, Tensor]:
    """Full-size weights that compute the same as `slice_ssm`: what is given up leaves the convolution as zero."""
    out = dict(weights)
    for name, size in zip(("c_conv", "x_conv"), kept, strict=True):
        out[name] = weights[name] * (torch.arange(weights[name].shape[1]) < size)[:, None]
    return out


def run_ssm(block: Ssm, weights: Mapping[str, Tensor], x: Tensor, norm_eps: float, tap: Tap | None) -> Tensor:
    """The mixer's output without its bias; x: (batch, tokens, d_model), normed."""
    if weights["out"].shape[2] == 0:  # dropped: only its bias is left
        return torch.zeros_like(x)
    z = _project(weights, "z", x)
    inner, b, c = (F.silu(_convolved(_project(weights, role, x), weights[f"{role}_conv"])) for role in _INNER)
    dt = see(tap, "dt", _step_sizes(block, weights, x))
    b, c = see(tap, "b", b), see(tap, "c", c)
    y, states = scan(inner, dt, weights["a"], b, c)
    see(tap, "states", states)
    y = y + weights["d"][:, None] * inner
    hidden = see(tap, "hidden", _gated_norm(block, y, z, weights["gain"], norm_eps))
    return multiply(hidden.flatten(-2), weights["out"].flatten(1))


def scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """y_t = c_t S_t with S_t = exp(dt_t a) S_(t-1) + dt_t x_t b_t^T, in chunks: within a chunk as masked attention.

    x: (batch, tokens, heads, head_dim); dt: (batch, tokens, heads); a: (heads,); b, c: (batch, tokens, groups, state)
    returns y like x, and S behind each chunk: (batch, chunks, heads, head_dim, state)
    """
    n_tokens, repeats = x.shape[1], x.shape[2] // b.shape[2]
    fill = -n_tokens % CHUNK_TOKENS

    def chunked(value: Tensor) -> Tensor:  # zeros behind the end: dt = 0 leaves the state alone
        return F.pad(value, (0, 0) * (value.ndim - 2) + (0, fill)).unflatten(1, (-1, CHUNK_TOKENS))

    moved = chunked(x * dt[..., None])
    b, c = (chunked(v).repeat_interleave(repeats, dim=3) for v in (b, c))
    log = chunked(dt.double() * a.double()).cumsum(2)  # (batch, chunks, length, heads)
    causal = torch.ones(log.shape[2], log.shape[2], dtype=torch.bool).tril()[:, :, None]
    decay = (log[:, :, :, None] - log[:, :, None]).masked_fill(~causal, -torch.inf).exp().to(x.dtype)
    y = torch.einsum("bklhn,bkshn,bklsh,bkshp->bklhp", c, b, decay, moved)
    to_end = (log[:, :, -1:] - log).exp().to(x.dtype)
    own = torch.einsum("bkshn,bksh,bkshp->bkhpn", b, to_end, moved)
    states = [torch.zeros_like(own[:, 0])]
    for index in range(own.shape[1]):
        past = log[:, index, -1].exp().to(x.dtype)[..., None, None]
        states.append(states[-1] * past + own[:, index])
    before = torch.stack(states[:-1], dim=1)
    y = y + torch.einsum("bklhn,bklh,bkhpn->bklhp", c, log.exp().to(x.dtype), before)
    return y.flatten(1, 2)[:, :n_tokens], torch.stack(states[1:], dim=1)


@dataclass
class SsmState:
    """What a mixer remembers of `count` texts: inputs of its convolutions and its state."""

    past: dict[str, Tensor]  # by x, b, c: (count, kernel - 1, heads or groups, size)
    state: Tensor  # (count, heads, head_dim, state)

    @classmethod
    def empty(cls, block: Ssm, count: int) -> SsmState:
        """Before the first token."""
        shapes = {"x": (block.n_heads, block.head_dim)}
        shapes |= dict.fromkeys(("b", "c"), (block.n_groups, block.state_size))
        past = {role: torch.zeros(count, block.conv_kernel - 1, *shape) for role, shape in shapes.items()}
        return cls(past, torch.zeros(count, block.n_heads, block.head_dim, block.state_size))

    @staticmethod
    def n_floats(block: Ssm) -> int:
        """Floats per text."""
        inner, state = block.n_heads * block.head_dim, block.n_groups * block.state_size
        return inner * block.state_size + (block.conv_kernel - 1) * (inner + 2 * state)


def step_ssm(block: Ssm, weights: Mapping[str, Tensor], x: Tensor, norm_eps: float, memory: SsmState) -> Tensor:
    """`run_ssm` for one more token: x (count, 1, d_model), normed -> (count, 1, d_model); `memory` is updated."""
    z = _project(weights, "z", x)
    made = []
    for role in _INNER:
        seen = torch.cat([memory.past[role], _project(weights, role, x)], dim=1)
        memory.past[role] = seen[:, 1:]
        taps = weights[f"{role}_conv"]
        made.append(F.silu(torch.einsum("bkhp,hpk->bhp", seen, taps[..., :-1]) + taps[..., -1]))
    repeats = block.n_heads // block.n_groups
    inner, b, c = made[0], *(v.repeat_interleave(repeats, dim=1) for v in made[1:])
    dt = _step_sizes(block, weights, x)[:, 0]
    added = torch.einsum("bh,bhp,bhn->bhpn", dt, inner, b)
    memory.state = memory.state * (dt * weights["a"]).exp()[..., None, None] + added
    y = torch.einsum("bhn,bhpn->bhp", c, memory.state) + weights["d"][:, None] * inner
    hidden = _gated_norm(block, y[:, None], z, weights["gain"], norm_eps)
    return multiply(hidden.flatten(-2), weights["out"].flatten(1))


def _project(weights: Mapping[str, Tensor], role: str, x: Tensor) -> Tensor:
    """(batch, tokens, d_model) -> (batch, tokens, heads or groups, size)"""
    y = multiply(x, weights[role].flatten(0, 1)).unflatten(-1, weights[role].shape[:2])
    return y + weights[f"{role}_bias"] if f"{role}_bias" in weights else y


def _convolved(x: Tensor, taps: Tensor) -> Tensor:
    """Causal convolution of each channel: (batch, tokens, heads, size), nothing before the first token."""
    flat = taps.flatten(0, 1).to(x.dtype)
    padded = F.pad(x.flatten(-2).transpose(1, 2), (flat.shape[1] - 2, 0))
    y = F.conv1d(padded, flat[:, None, :-1], flat[:, -1], groups=len(flat))
    return y.transpose(1, 2).unflatten(-1, x.shape[2:])


def _step_sizes(block: Ssm, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """dt (batch, tokens, heads)"""
    return F.softplus(x @ weights["dt"].to(x.dtype).T + weights["dt_bias"]).clamp(*block.step_limits)


def _gated_norm(block: Ssm, y: Tensor, z: Tensor, gain: Tensor, norm_eps: float) -> Tensor:
    """RMSNorm of y * silu(z) with the mean over the full width of each group of heads, whatever a level keeps."""
    gated = y * F.silu(z)
    heads = block.n_heads // block.norm_groups
    squares = gated.square().unflatten(2, (block.norm_groups, heads)).sum((-2, -1))  # (batch, tokens, norm_groups)
    inverse = (squares / (heads * block.head_dim) + norm_eps).rsqrt().repeat_interleave(heads, dim=2)
    return gated * inverse[..., None] * gain
