"""Gradients of KL(source || student), block by block: one block's weights are in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from edgesdk.cloud.reference import MATRICES, Decoder, cast_matrices, product_dtype, run_block

__all__ = ["divergence_gradients"]

_CHUNK_TOKENS = 512
_LEAST = 0.03  # nats per token: about what quantization costs anyway; a smaller KL is not worth more

See = Callable[[int, Mapping[str, Tensor]], None]


def divergence_gradients(
    source: Decoder,
    source_states: Tensor,
    student: Decoder,
    tokens: Tensor,
    see: See,
    *,
    relative: bool = False,
    room: Tensor | None = None,
) -> float:
    """Mean KL(source || student) in nats per token of `tokens` (batch, n_tokens), and its gradients.

    source_states: (batch, n_tokens, d_model), the source's residual stream after its last block
    see(index, gradients) is called for each block from the last to the first: the gradients of its matrices, norm and
    bias, by name, shaped like the weights in natural order. Inner activations are computed again on the way back.
    relative: gradients of the logarithm of the KL
    room: (n_blocks, batch or more, n_tokens, d_model) for the stream before every block; None: memory
    """
    dtype = product_dtype()
    blocks, eps = student.config.blocks, student.config.norm_eps
    inputs = []
    with torch.no_grad():
        x = student.embed(tokens)
        for index, block in enumerate(blocks):
            inputs.append(x if room is None else room[index, : len(x)].copy_(x))
            x = run_block(block, cast_matrices(student.block_weights(index), dtype), x, eps)
    divergence, gradient = _head_gradient(source, student, source_states, x, dtype)
    if relative:
        gradient = gradient / max(divergence, _LEAST)
    for index in range(len(blocks) - 1, -1, -1):
        weights = dict(cast_matrices(student.block_weights(index), dtype))
        names = [name for name in weights if name in MATRICES or name in ("norm", "bias")]
        for name in names:
            weights[name] = weights[name].detach().requires_grad_()
        x = inputs.pop().detach().requires_grad_()
        with torch.enable_grad():
            out = run_block(blocks[index], weights, x, eps)
        gradient, *found = torch.autograd.grad(out, [x, *(weights[name] for name in names)], gradient)
        del weights, out
        see(index, {name: g.float() for name, g in zip(names, found, strict=True)})
    return divergence


def _head_gradient(
    source: Decoder, student: Decoder, own: Tensor, x: Tensor, dtype: torch.dtype
) -> tuple[float, Tensor]:
    """Mean KL of the next-token distributions, and its gradient with respect to x (batch, n_tokens, d_model)."""
    n_tokens = x.shape[0] * x.shape[1]
    heads = source.head.to(dtype), student.head.to(dtype)
    total, gradients = 0.0, []
    for a, b in zip(own.flatten(0, 1).split(_CHUNK_TOKENS), x.flatten(0, 1).split(_CHUNK_TOKENS), strict=True):
        with torch.no_grad():
            target = _logits(source, heads[0], a).log_softmax(-1)
        part = b.detach().requires_grad_()
        with torch.enable_grad():
            found = _logits(student, heads[1], part).log_softmax(-1)
            loss = F.kl_div(found, target, reduction="sum", log_target=True) / n_tokens
        gradients.append(torch.autograd.grad(loss, part)[0])
        total += float(loss.detach())
    return total, torch.cat(gradients).view_as(x)


def _logits(decoder: Decoder, head: Tensor, x: Tensor) -> Tensor:
    normed = F.rms_norm(x, x.shape[-1:], decoder.final_norm, decoder.config.norm_eps)
    return decoder.capped((normed.to(head.dtype) @ head.T).float())
