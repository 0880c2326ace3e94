"""Samples text from the model itself: calibration that needs no data set, no network and no licence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from edgesdk.cloud.attention import attend_last
from edgesdk.cloud.families.blocks import Attention, ModelConfig, Ssm
from edgesdk.cloud.memory import available_bytes, block_bytes
from edgesdk.cloud.reference import MATRICES, BlockWeights, Decoder, product_dtype, run_block
from edgesdk.cloud.ssm import SsmState, step_ssm
from edgesdk.errors import ModelError

__all__ = ["sample_windows"]

_MOST_WINDOWS = 128  # at once
_CACHE_BYTES = 1 << 30  # for keys, values and states


def sample_windows(
    decoder: Decoder,
    starts: Sequence[int],
    n_windows: int,
    window_tokens: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Windows sampled at temperature 1, without a prompt: (n_windows, window_tokens) int64.

    starts: first tokens, used in turn (begin of text, end of text). Computed in bfloat16 where the CPU has it.
    Raises ModelError when the model does not fit the memory that is free.
    """
    dtype = product_dtype()
    _check_room(decoder.config, dtype)
    weights = [
        {name: t.to(dtype) if name in MATRICES else t for name, t in decoder.block_weights(i).items()}
        for i in range(len(decoder.config.blocks))
    ]
    head = decoder.head.to(dtype)
    windows = []
    at_once = _windows_at_once(decoder.config, window_tokens)
    for begin in range(0, n_windows, at_once):
        count = min(at_once, n_windows - begin)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + begin)
        first = torch.tensor([starts[(begin + i) % len(starts)] for i in range(count)])

        def report(step: int, begin: int = begin, count: int = count) -> None:
            if progress:
                progress(begin * window_tokens + step * count, n_windows * window_tokens)

        windows.append(_sample(decoder, weights, head, first, window_tokens, generator, report))
    return torch.cat(windows)


def _check_room(config: ModelConfig, dtype: torch.dtype) -> None:
    """Every token needs every weight: the whole model is in memory, or sampling takes days."""
    n_bytes = dtype.itemsize * config.vocab_size * config.d_model
    n_bytes += sum(block_bytes(config, i) for i in range(len(config.blocks))) * dtype.itemsize // 4
    room = available_bytes() - _CACHE_BYTES
    if n_bytes > room:
        raise ModelError(
            f"sampling text from this model takes {n_bytes / 1e9:.1f} GB for its weights, {room / 1e9:.1f} GB are free",
            hint="give texts instead: --calibration-text and --eval-text; then one block at a time is in memory",
        )


def _windows_at_once(config: ModelConfig, window_tokens: int) -> int:
    per_token = sum(8 * b.n_kv_heads * b.head_dim for b in config.blocks if isinstance(b, Attention))
    states = sum(4 * SsmState.n_floats(b) for b in config.blocks if isinstance(b, Ssm))
    return max(1, min(_MOST_WINDOWS, _CACHE_BYTES // max(1, per_token * window_tokens + states)))


@torch.inference_mode()
def _sample(
    decoder: Decoder,
    weights: Sequence[BlockWeights],
    head: Tensor,
    first: Tensor,
    n_tokens: int,
    generator: torch.Generator,
    report: Callable[[int], None],
) -> Tensor:
    config = decoder.config
    dtype = head.dtype
    count = first.shape[0]
    caches: dict[int, tuple[Tensor, Tensor]] = {}
    for i, block in enumerate(config.blocks):
        if isinstance(block, Attention):
            shape = (count, block.n_kv_heads, n_tokens, block.head_dim)
            caches[i] = (torch.empty(shape), torch.empty(shape))
    states = {i: SsmState.empty(block, count) for i, block in enumerate(config.blocks) if isinstance(block, Ssm)}
    tokens = torch.empty((count, n_tokens), dtype=torch.int64)
    tokens[:, 0] = first
    for position in range(n_tokens - 1):
        x = decoder.embed(tokens[:, position : position + 1])
        for i, block in enumerate(config.blocks):
            if isinstance(block, Attention):
                x = x + _attend(block, weights[i], x, config.norm_eps, caches[i], position, dtype)
            elif isinstance(block, Ssm):
                normed = F.rms_norm(x, x.shape[-1:], weights[i]["norm"], config.norm_eps)
                x = x + step_ssm(block, weights[i], normed, config.norm_eps, states[i]) + weights[i].get("bias", 0.0)
            else:
                x = run_block(block, weights[i], x, config.norm_eps)
        normed = F.rms_norm(x[:, 0], x.shape[-1:], decoder.final_norm, config.norm_eps)
        cumulative = decoder.capped((normed.to(dtype) @ head.T).float()).softmax(-1).cumsum(-1)
        drawn = torch.rand((count, 1), generator=generator) * cumulative[:, -1:]
        tokens[:, position + 1] = torch.searchsorted(cumulative, drawn)[:, 0].clamp_max(cumulative.shape[1] - 1)
        report(position + 2)
    return tokens


def _attend(
    block: Attention,
    w: BlockWeights,
    x: Tensor,
    norm_eps: float,
    cache: tuple[Tensor, Tensor],
    position: int,
    dtype: torch.dtype,
) -> Tensor:
    """One token's attention output; stores its key and value at `position`."""
    normed = F.rms_norm(x, x.shape[-1:], w["norm"], norm_eps).to(dtype)
    q, k, v = (
        (normed @ w[role].flatten(0, 1).T).float().unflatten(-1, (-1, block.head_dim))[:, 0] for role in ("q", "k", "v")
    )
    q, k = (y + w[f"{role}_bias"].float() if f"{role}_bias" in w else y for role, y in (("q", q), ("k", k)))
    if block.qk_norm:
        q, k = (F.rms_norm(y, y.shape[-1:], w[f"{role}_norm"], norm_eps) for role, y in (("q", q), ("k", k)))
    angle = (position * w["inv_freq"].double()).float()
    k = _rotate(k, angle)
    q = _rotate(q, angle.repeat_interleave(block.n_heads // block.n_kv_heads, dim=0))
    keys, values = cache
    keys[:, :, position], values[:, :, position] = k, v
    past = slice(0, position + 1)
    grouped = q.unflatten(1, (block.n_kv_heads, -1))  # (count, n_kv_heads, group, d): a group shares its keys
    z = attend_last(block, grouped, keys[:, :, past], values[:, :, past])
    output = (z.flatten(1)[:, None].to(dtype) @ w["o"].flatten(1).T).float() + w.get("bias", 0.0)
    return F.rms_norm(output, output.shape[-1:], w["post_norm"], norm_eps) if block.post_norm else output


def _rotate(x: Tensor, angle: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
