"""One torch decoder for all families: calibration, allocation, exports and the checks of the compiler run on it.

Weights are kept in their natural order: q (n_heads, qk, d_model), k and v (n_kv_heads, size, d_model),
o (d_model, n_heads, vo), inv_freq (n_kv_heads, qk / 2) with RoPE halves at j and j + qk / 2; gate, up (width, d_model),
down (d_model, width); norm, post_norm and bias (d_model,); q_norm and k_norm (head_dim,); q_bias, k_bias, gate_bias,
up_bias like their weights without d_model. Those of a state-space mixer: see `ssm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from edgesdk.cloud.attention import attend, softcapped
from edgesdk.cloud.families.blocks import NORMS, Attention, Block, Mlp, ModelConfig, Source, Ssm
from edgesdk.cloud.products import Tap, multiply, see
from edgesdk.cloud.ssm import load_ssm, mask_ssm, run_ssm, slice_ssm
from edgesdk.cloud.workdir import WorkDirectory

__all__ = [
    "MATRICES",
    "BlockWeights",
    "Decoder",
    "Tap",
    "TensorSource",
    "cast_matrices",
    "load_block",
    "mask_block",
    "product_dtype",
    "run_block",
    "slice_block",
]

MATRICES = ("q", "k", "v", "o", "gate", "up", "down", "z", "x", "b", "c", "out")
"""Names of the weights that are multiplied with activations; the others are vectors."""

BlockWeights = Mapping[str, Tensor]

_HEAD_ROWS = 4096  # that are widened at once


class TensorSource(Protocol):
    """What the decoder needs of a checkpoint."""

    def tensor(self, name: str) -> Tensor:
        """One tensor in float32."""
        ...


def load_block(source: TensorSource, block: Block) -> dict[str, Tensor]:
    """Reads one block's weights in float32 and brings them into the natural order.

    A value bias becomes a constant of the output, since attention weights sum to 1: bias += sum_h o_h v_bias.
    """
    read = {role: _read(source, part) for role, part in block.sources.items()}
    if isinstance(block, Ssm):
        return load_ssm(block, read)
    for role in NORMS:
        if role in read:
            read[role] = read[role] + block.gain_offset
    if isinstance(block, Mlp):
        return {("bias" if role == "down_bias" else role): tensor for role, tensor in read.items()}
    weights = {role: read[role] for role in NORMS if role in read}
    size = block.head_dim
    for role, heads in (("q", block.n_heads), ("k", block.n_kv_heads), ("v", block.n_kv_heads)):
        weights[role] = read[role].reshape(heads, size, -1)
        if f"{role}_bias" in read:
            weights[f"{role}_bias"] = read[f"{role}_bias"].reshape(heads, size)
        if role != "v" and block.rotary_dim:
            order = _halves(block)
            for name in (role, f"{role}_bias"):
                if name in weights:
                    weights[name] = weights[name][:, order]
        if role != "v" and block.rotary_scale != 1.0:  # yarn scales cos and sin: the same as scaling q and k
            for name in (f"{role}_norm",) if block.qk_norm else (role, f"{role}_bias"):
                if name in weights:
                    weights[name] = weights[name] * block.rotary_scale
    weights["o"] = read["o"].reshape(-1, block.n_heads, size)
    weights["inv_freq"] = torch.tensor(block.inv_freq, dtype=torch.float32).repeat(block.n_kv_heads, 1)
    if "o_bias" in read:
        weights["bias"] = read["o_bias"]
    if "v_bias" in weights:
        value = weights.pop("v_bias").repeat_interleave(block.n_heads // block.n_kv_heads, dim=0)
        constant = torch.einsum("dhs,hs->d", weights["o"].double(), value.double()).float()
        weights["bias"] = weights["bias"] + constant if "bias" in weights else constant
    return weights


def _read(source: TensorSource, part: Source) -> Tensor:
    return source.tensor(part) if isinstance(part, str) else source.tensor(part.name)[part.begin : part.end].clone()


def _halves(block: Attention) -> Tensor:
    """Where each element of a head comes from when only the first rotary_dim are rotated, as halves of their own.

    The others make pairs that do not turn, so that all pairs lie at j and j + head_dim / 2.
    """
    halves = torch.arange(block.rotary_dim).chunk(2)
    rest = torch.arange(block.rotary_dim, block.head_dim).chunk(2)
    return torch.cat([halves[0], rest[0], halves[1], rest[1]])


def slice_block(block: Block, weights: BlockWeights, kept: Sequence[int]) -> dict[str, Tensor]:
    """The block's weights at a level: a prefix of every axis (of RoPE pairs on the qk axis)."""
    if isinstance(block, Ssm):
        return slice_ssm(weights, kept)
    out = _without_post_norm(weights) if 0 in kept else dict(weights)
    if isinstance(block, Mlp):
        (width,) = kept
        rows = [role for role in ("gate", "up", "gate_bias", "up_bias") if role in weights]
        return {**out, **{role: weights[role][:width] for role in rows}, "down": weights["down"][:, :width]}
    qk, vo = kept
    pairs, full_pairs = qk // 2, weights["inv_freq"].shape[1]
    index = torch.cat([torch.arange(pairs), full_pairs + torch.arange(pairs)])
    for role in ("q", "k", "q_bias", "k_bias"):
        if role in weights:
            out[role] = weights[role][:, index]
    out["v"] = weights["v"][:, :vo]
    out["o"] = weights["o"][:, :, :vo]
    out["inv_freq"] = weights["inv_freq"][:, :pairs]
    return out


def mask_block(block: Block, weights: BlockWeights, kept: Sequence[int]) -> dict[str, Tensor]:
    """The full-size block with everything that the level gives up set to zero; computes the same as `slice_block`."""
    if isinstance(block, Ssm):
        return mask_ssm(weights, kept)
    out = _without_post_norm(weights) if 0 in kept else dict(weights)
    if isinstance(block, Mlp):
        out["down"] = weights["down"] * (torch.arange(block.width) < kept[0])
        return out
    qk, vo = kept
    pair = torch.arange(weights["q"].shape[1]) % (weights["q"].shape[1] // 2)
    out["q"] = weights["q"] * (pair < qk // 2)[:, None]
    if "q_bias" in weights:
        out["q_bias"] = weights["q_bias"] * (pair < qk // 2)
    out["o"] = weights["o"] * (torch.arange(weights["o"].shape[2]) < vo)
    return out


def _without_post_norm(weights: BlockWeights) -> dict[str, Tensor]:
    """Of a block that is left out only the bias remains, which is added as it is."""
    return {name: tensor for name, tensor in weights.items() if name != "post_norm"}


def cast_matrices(weights: BlockWeights, dtype: torch.dtype) -> BlockWeights:
    """The weights with their matrices in `dtype`; vectors stay as they are."""
    return {name: tensor.to(dtype) if name in MATRICES else tensor for name, tensor in weights.items()}


def product_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies it fast, else float32."""
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def run_block(block: Block, weights: BlockWeights, x: Tensor, norm_eps: float, tap: Tap | None = None) -> Tensor:
    """x + block(norm(x)); x: (batch, tokens, d_model), positions start at 0.

    Products are computed in the dtype of the weights (bfloat16 is allowed), everything else in the dtype of x.
    """
    normed = see(tap, "input", F.rms_norm(x, x.shape[-1:], weights["norm"].to(x.dtype), norm_eps))
    if isinstance(block, Ssm):
        output = run_ssm(block, weights, normed, norm_eps, tap)
    elif isinstance(block, Mlp):
        output = _mlp(block, weights, normed, tap)
    else:
        output = _attention(block, weights, normed, norm_eps, tap)
    if "bias" in weights:
        output = output + weights["bias"]
    if "post_norm" in weights:
        output = F.rms_norm(output, x.shape[-1:], weights["post_norm"].to(x.dtype), norm_eps)
    return x + see(tap, "output", output)


def _attention(block: Attention, weights: BlockWeights, x: Tensor, norm_eps: float, tap: Tap | None) -> Tensor:
    if weights["o"].shape[2] == 0:  # dropped: only its bias is left
        return torch.zeros_like(x)

    def project(role: str) -> Tensor:
        heads, size, _ = weights[role].shape
        y = multiply(x, weights[role].flatten(0, 1)).unflatten(-1, (heads, size))
        y = y + weights[f"{role}_bias"] if f"{role}_bias" in weights else y
        if f"{role}_norm" in weights:
            y = F.rms_norm(y, (size,), weights[f"{role}_norm"].to(y.dtype), norm_eps)
        return see(tap, role, y)

    q, k, v = project("q"), project("k"), project("v")
    repeats = block.n_heads // block.n_kv_heads
    positions = torch.arange(x.shape[1], dtype=torch.float64)
    angle = positions[:, None, None] * weights["inv_freq"].double()  # (tokens, kv_heads, pairs)
    q = _rotate(q, angle.repeat_interleave(repeats, dim=1)).transpose(1, 2)
    k = _rotate(k, angle).repeat_interleave(repeats, dim=2).transpose(1, 2)
    v = v.repeat_interleave(repeats, dim=2).transpose(1, 2)
    z = see(tap, "z", attend(block, q, k, v).transpose(1, 2))
    return multiply(z.flatten(-2), weights["o"].flatten(1))


def _rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Half-split rotary embedding; x: (batch, tokens, heads, 2 * pairs), angle: (tokens, heads, pairs)."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _mlp(block: Mlp, weights: BlockWeights, x: Tensor, tap: Tap | None) -> Tensor:
    def project(role: str) -> Tensor:
        y = multiply(x, weights[role])
        return y + weights[f"{role}_bias"] if f"{role}_bias" in weights else y

    up = project("up")
    if not block.gated:
        hidden = F.relu(up).square()
    elif block.activation == "silu":
        hidden = F.silu(project("gate")) * up
    else:
        hidden = F.gelu(project("gate"), approximate="tanh") * up
    return multiply(see(tap, "hidden", hidden), weights["down"])


def _double(weights: BlockWeights) -> BlockWeights:
    """The weights in float64; one tensor after the other is let go of."""
    out = dict(weights)
    del weights
    for name in out:
        out[name] = out[name].double()
    return out


@dataclass(frozen=True)
class Decoder:
    """A whole model: embeddings, a way to get each block's weights, final norm and head.

    block_weights: weights by block index; they may be read lazily, so that one block is in memory at a time.
    embedding and head may be in another dtype than the model computes in, which is that of final_norm.
    """

    config: ModelConfig
    embedding: Tensor
    final_norm: Tensor
    head: Tensor
    block_weights: Callable[[int], BlockWeights]

    @classmethod
    def open(cls, source: TensorSource, config: ModelConfig, work: WorkDirectory | None = None) -> Decoder:
        """The source model, blocks read from the checkpoint when they are needed.

        work: where embedding and head are put into files that are mapped; None: they are in memory
        """

        def whole(role: str) -> Tensor:
            def read() -> Tensor:
                return source.tensor(config.sources[role])

            return read() if work is None else work.mapped(f"{role}.safetensors", read)

        embedding = whole("embed")
        head = embedding if config.tied_head else whole("head")
        return cls(
            config,
            embedding,
            source.tensor(config.sources["norm"]) + config.gain_offset,
            head,
            lambda index: load_block(source, config.blocks[index]),
        )

    def double(self) -> Decoder:
        """The same model in float64; embedding and head stay as they are and are widened where they are used."""
        return replace(
            self,
            final_norm=self.final_norm.double(),
            block_weights=lambda index: _double(self.block_weights(index)),
        )

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens (batch, n_tokens) -> (batch, n_tokens, d_model)."""
        return F.embedding(tokens, self.embedding).to(self.final_norm.dtype) * self.config.embedding_scale

    def normed(self, x: Tensor) -> Tensor:
        """Final norm: what the head reads, (..., d_model)."""
        return F.rms_norm(x, x.shape[-1:], self.final_norm, self.config.norm_eps)

    def logits(self, x: Tensor) -> Tensor:
        """Final norm and head: (..., d_model) -> (..., vocab_size)."""
        normed = self.normed(x)
        if self.head.dtype == normed.dtype:
            return self.capped(normed @ self.head.T)
        parts = [normed @ part.to(normed.dtype).T for part in self.head.split(_HEAD_ROWS)]
        return self.capped(torch.cat(parts, dim=-1))

    def capped(self, logits: Tensor) -> Tensor:
        """The logits that a product with the head stands for, in models that cap them."""
        return softcapped(logits, self.config.logit_softcap)

    def states(self, tokens: Tensor, first: int = 0, x: Tensor | None = None) -> Iterator[Tensor]:
        """The residual stream before block `first`, and after each block from there on."""
        x = self.embed(tokens) if x is None else x
        yield x
        for index in range(first, len(self.config.blocks)):
            x = run_block(self.config.blocks[index], self.block_weights(index), x, self.config.norm_eps)
            yield x

    def final_states(self, tokens: Tensor, batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The residual stream after the last block: (n_windows, n_tokens, d_model); products in `dtype`.

        `batch` windows run at once; each block's weights are loaded once.
        """
        parts = list(self.embed(tokens).split(batch))
        for index, block in enumerate(self.config.blocks):
            weights = cast_matrices(self.block_weights(index), dtype)
            for i, part in enumerate(parts):
                parts[i] = run_block(block, weights, part, self.config.norm_eps)
            del weights
        return torch.cat(parts)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (batch, n_tokens) -> logits (batch, n_tokens, vocab_size)."""
        for x in self.states(tokens):
            last = x
        return self.logits(last)
