"""Measured losses: KL to the source when single blocks are cut, on calibration text, many candidates in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgesdk.cloud.families.blocks import Block
from edgesdk.cloud.reference import BlockWeights, Decoder, cast_matrices, product_dtype, run_block, slice_block
from edgesdk.cloud.repair import repaired_bias
from edgesdk.cloud.sizes import Allocation

__all__ = ["Candidate", "LossMeter"]

_CHUNK_TOKENS = 256
_BATCH_TOKENS = 2048
_STATE_BYTES = 3 << 28  # of residual streams of candidates


@dataclass(frozen=True)
class Candidate:
    """Block `index` keeps `kept`, all other blocks stay as the base allocation says."""

    index: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class LossMeter:
    """Measures KL(source || cut model) in nats per token; products in bfloat16 where the CPU has it.

    decoder: the sorted float model; moments: of a sorted block; windows: (n_windows, tokens)
    """

    decoder: Decoder
    moments: Callable[[int], Mapping[str, Tensor]]
    windows: Tensor
    source_state: Tensor  # (n_windows, tokens, d_model) before the final norm

    @classmethod
    def start(cls, decoder: Decoder, moments: Callable[[int], Mapping[str, Tensor]], windows: Tensor) -> LossMeter:
        """Runs the source model once."""
        with torch.inference_mode():
            return cls(decoder, moments, windows, decoder.final_states(windows, len(windows)))

    @torch.inference_mode()
    def measure(
        self,
        base: Allocation,
        candidates: Sequence[Candidate],
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[float, list[float]]:
        """KL of the base allocation, and of each candidate; as many go through the model at once as have room."""
        at_once = max(1, _STATE_BYTES // (self.source_state.numel() * self.source_state.element_size()))
        rounds = [candidates[i : i + at_once] for i in range(0, len(candidates), at_once)] or [[]]
        n_blocks = len(self.decoder.config.blocks)
        base_loss, losses = 0.0, []
        for number, some in enumerate(rounds):

            def report(done: int, number: int = number) -> None:
                if progress:
                    progress(number * n_blocks + done, len(rounds) * n_blocks)

            base_loss, *found = self._measure(base, some, report)
            losses += found
        return base_loss, losses

    def _measure(self, base: Allocation, candidates: Sequence[Candidate], report: Callable[[int], None]) -> list[float]:
        """KL of the base allocation and of each candidate; blocks are read once each."""
        blocks, eps = self.decoder.config.blocks, self.decoder.config.norm_eps
        dtype = product_dtype()
        by_block: dict[int, list[int]] = {}
        for position, candidate in enumerate(candidates):
            by_block.setdefault(candidate.index, []).append(position)
        base_state = self.decoder.embed(self.windows)
        states: dict[int, Tensor] = {}
        at_once = max(1, _BATCH_TOKENS // self.windows.numel())
        for index, block in enumerate(blocks):
            full = self.decoder.block_weights(index)
            moments = self.moments(index)
            weights = cast_matrices(_cut(block, full, base[index], moments), dtype)
            alive = list(states)
            for begin in range(0, len(alive), at_once):
                part = alive[begin : begin + at_once]
                out = run_block(block, weights, torch.cat([states[p] for p in part]), eps)
                states |= dict(zip(part, out.split(len(self.windows)), strict=True))
            for position in by_block.get(index, []):
                cut = cast_matrices(_cut(block, full, candidates[position].kept, moments), dtype)
                states[position] = run_block(block, cut, base_state, eps)
                del cut
            base_state = run_block(block, weights, base_state, eps)
            del full, moments, weights
            report(index + 1)
        return self._divergences([base_state, *(states[p] for p in range(len(candidates)))], dtype)

    def _divergences(self, states: Sequence[Tensor], dtype: torch.dtype) -> list[float]:
        """Mean KL of each state's next-token distribution to the source's."""
        config = self.decoder.config
        head = self.decoder.head.to(dtype)

        def logits(x: Tensor) -> Tensor:
            normed = torch.nn.functional.rms_norm(x, x.shape[-1:], self.decoder.final_norm, config.norm_eps)
            return self.decoder.capped((normed.to(dtype) @ head.T).float())

        totals = [0.0] * len(states)
        source = self.source_state.flatten(0, 1)
        for begin in range(0, len(source), _CHUNK_TOKENS):
            chunk = slice(begin, begin + _CHUNK_TOKENS)
            own = logits(source[chunk]).log_softmax(-1)
            probability = own.exp()
            entropy = float((probability * own).sum())
            for i, state in enumerate(states):
                other = logits(state.flatten(0, 1)[chunk])
                cross = float((probability * other).sum() - other.logsumexp(-1).sum())
                totals[i] += entropy - cross
        return [max(0.0, total / len(source)) for total in totals]


def _cut(block: Block, weights: BlockWeights, kept: tuple[int, ...], moments: Mapping[str, Tensor]) -> BlockWeights:
    """The sliced block with the bias that repairs what was cut, as it will be deployed."""
    if kept == tuple(axis.size for axis in block.axes):
        return weights
    cut = slice_block(block, weights, kept)
    bias = repaired_bias(block, weights, kept, moments)
    return {**cut, "bias": bias}
