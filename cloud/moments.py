"""What calibration learns about a block: second moments and means of the activations that its weights read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgesdk.cloud.ssm import CHUNK_TOKENS

__all__ = ["SINK_TOKENS", "Moments", "MomentsAccumulator"]

SINK_TOKENS = 4
"""First tokens of a window, where attention sinks sit: kept in second moments, left out of means."""


@dataclass(frozen=True)
class Moments:
    """Sums are divided by the number of tokens. All float32.

    input: (d_model, d_model) of the normed block input
    attention: z (n_heads * head_dim, same), z_mean (n_heads, head_dim), v (n_kv_heads, head_dim, head_dim),
        q_energy (n_heads, head_dim / 2), k_energy (n_kv_heads, head_dim / 2): of RoPE pairs
    ssm: hidden (n_heads * head_dim, same), hidden_mean (n_heads, head_dim), b_energy (n_heads, state): of dt b,
        c_energy (n_groups, state), states (n_heads, head_dim, head_dim): summed over n, seen once a chunk
    mlp: hidden (width, width), hidden_mean (width,)
    output_mean: (d_model,) of what the block adds
    similarity: mean cosine between the residual stream before and after the block
    """

    tensors: Mapping[str, Tensor]
    similarity: float

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


class MomentsAccumulator:
    """Streams activations into sums; memory does not grow with the number of tokens."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._n_tokens = 0
        self._n_mean_tokens = 0
        self._similarity = 0.0
        self._steps = torch.empty(0)

    def tap(self, name: str, value: Tensor) -> Tensor:
        """A `reference.Tap`."""
        flat = value.reshape(-1, *value.shape[2:])
        if name == "input":
            self._n_tokens += flat.shape[0]
            self._n_mean_tokens += value.shape[0] * max(0, value.shape[1] - SINK_TOKENS)
        if name in ("input", "hidden", "z"):
            rows = flat.flatten(1)
            self._add(name, rows.T @ rows)
        if name in ("hidden", "z", "output"):
            self._add(f"{name}_mean", value[:, SINK_TOKENS:].sum(dim=(0, 1)))
        if name == "v":
            self._add(name, torch.einsum("nhi,nhj->hij", flat, flat))
        if name == "dt":
            self._steps = flat.square()
        if name == "b":
            squares, groups = flat.square(), flat.shape[1]
            steps = self._steps.reshape(len(flat), groups, -1)
            self._add("b_energy", torch.einsum("tgh,tgn->ghn", steps, squares).flatten(0, 1))
        if name == "c":
            self._add("c_energy", flat.square().sum(0))
        if name == "states":
            self._add(name, CHUNK_TOKENS * torch.einsum("thin,thjn->hij", flat, flat))
        if name in ("q", "k"):
            first, second = flat.chunk(2, dim=-1)
            self._add(f"{name}_energy", (first.square() + second.square()).sum(0))
        return value

    def see_residual(self, before: Tensor, after: Tensor) -> None:
        """Adds the cosine between the stream before and after the block."""
        self._similarity += float(torch.cosine_similarity(before, after, dim=-1).sum())

    def finish(self) -> Moments:
        """The moments per token; the sums become them."""
        for name, total in self._sums.items():
            total /= self._n_mean_tokens if name.endswith("_mean") else self._n_tokens
        return Moments(self._sums, self._similarity / self._n_tokens)

    def _add(self, name: str, value: Tensor) -> None:
        if name in self._sums:
            self._sums[name] += value
        else:
            self._sums[name] = value
