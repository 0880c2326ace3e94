"""What repairs of a level buy, one by one: its bias, and low-rank side tensors beside `o` and `down`.

    python benchmarks/repairs.py [--rates 0.1 0.2 0.35] [--ranks 4 16] [--windows 4]

A level of the ladder of benchmarks/recover.py (without recovery) is taken as it is stored, without its biases, and with
side tensors of some rank: y += A B (h - E[h]), which minimise the mean squared error of what `o` and `down` give in
place of the source's full weights, under calibration statistics of the kept channels. Bytes: one per element of A and B
and two per row of scales; a bias has two per element. Beside each stands what as many bytes buy on the ladder itself.
Measured in torch on WikiText-2's test split. Writes build/bench/repairs.json.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch
from blocks import Blocks
from figures import Figure, write_figures
from recover import configuration
from rich.console import Console
from scores import StoredSource, score_decoder
from subjects import build, our_points
from torch import Tensor
from verdicts import Point

from edgesdk.cloud.export import level_decoder
from edgesdk.cloud.families.blocks import Attention
from edgesdk.cloud.reference import BlockWeights, Decoder
from edgesdk.formats import Artifact

COMMAND = "python benchmarks/repairs.py"
console = Console(highlight=False, width=150)


def side_tensors(error: Tensor, moment: Tensor, kept: Tensor, rank: int) -> Tensor:
    """The best (rows, n_kept) matrix of a rank to add to what a level computes from its kept channels.

    error: (rows, channels) of the weight, cut channels included; moment: (channels, channels), the covariance of what
    it reads
    """
    inner = moment[kept][:, kept].double()
    inner += 1e-2 * inner.diagonal().mean() * torch.eye(len(kept), dtype=torch.float64)
    lower = torch.linalg.cholesky(inner)
    # error h is best told from the kept channels as G h_kept; G L, with M = L L^T, has the norm that counts.
    wanted = torch.linalg.solve_triangular(lower, (error.double() @ moment[:, kept].double()).T, upper=False).T
    u, s, v = torch.linalg.svd(wanted, full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    return torch.linalg.solve_triangular(lower.T, best.T, upper=True).T.float()


class Level:
    """A stored level and the sorted source that it came from."""

    def __init__(self, blocks: Blocks, path: Path, level: int) -> None:
        self._blocks, self.stored = blocks, level_decoder(Artifact.open(path), level)

    def without_bias(self) -> Decoder:
        """Every block without its repair; sources of this family have no biases of their own."""

        def load(index: int) -> BlockWeights:
            return {name: t for name, t in self.stored.block_weights(index).items() if name != "bias"}

        return replace(self.stored, block_weights=load)

    def with_sides(self, rank: int) -> tuple[Decoder, int]:
        """Side tensors in all blocks, and their bytes."""
        sides: dict[int, tuple[Tensor, Tensor]] = {}
        n_bytes = 0
        for index, block in enumerate(self._blocks.source.config.blocks):
            held, own = self.stored.block_weights(index), self._blocks.ordered.decoder.block_weights(index)
            role, moment_name = ("o", "z") if isinstance(block, Attention) else ("down", "hidden")
            small, full = held[role], own[role]
            if small.numel() == 0:
                continue
            moments = self._blocks.ordered.moments(index)
            mean = moments[f"{moment_name}_mean"].flatten()
            spread = moments[moment_name] - torch.outer(mean, mean)  # the bias has repaired the mean already
            if isinstance(block, Attention):  # (rows, heads, size)
                n_heads, size, n_kept = full.shape[1], full.shape[2], small.shape[2]
                kept = (torch.arange(n_heads)[:, None] * size + torch.arange(n_kept)).flatten()
            else:
                kept = torch.arange(small.shape[1])
            error = full.flatten(1).clone()
            error[:, kept] -= small.flatten(1)
            side = side_tensors(error, spread, kept, rank)
            sides[index] = side.view_as(small), side @ mean[kept]
            n_bytes += rank * (small.shape[0] + len(kept)) + 2 * (small.shape[0] + rank)

        def load(index: int) -> BlockWeights:
            weights = self.stored.block_weights(index)
            if index not in sides:
                return weights
            role = "o" if "o" in weights else "down"
            side, mean = sides[index]
            return {**weights, role: weights[role] + side, "bias": weights["bias"] - mean}

        return replace(self.stored, block_weights=load), n_bytes


def on_the_ladder(ladder: list[Point], level: Point, n_bytes: int) -> float:
    """KL of the ladder with that many more bytes, between its levels log-linearly."""
    wanted = level.mapped_bytes + n_bytes
    above = next((p for p in ladder if p.mapped_bytes >= wanted), ladder[-1])
    below = max((p for p in ladder if p.mapped_bytes < above.mapped_bytes), key=lambda p: p.mapped_bytes, default=above)
    if above is below:
        return above.score.kl
    share = min(1.0, (wanted - below.mapped_bytes) / (above.mapped_bytes - below.mapped_bytes))
    return math.exp((1 - share) * math.log(below.score.kl) + share * math.log(above.score.kl))


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description="what repairs of a level buy")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.2, 0.35])
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--windows", type=int, default=4)
    arguments = parser.parse_args()
    config = configuration(0)
    blocks = Blocks(config)
    subject, d_model = blocks.subject, blocks.source.config.d_model
    path = build("recover-0", config, subject, blocks.folder)
    source = StoredSource.compute(subject.source, subject.windows(arguments.windows), blocks.folder, console.print)
    artifact, ladder = Artifact.open(path), our_points("without", path, source)
    figures = []
    for rate in arguments.rates:
        index = artifact.level_at_rate(rate).index
        level, point = Level(blocks, path, index), ladder[index]
        bare, own = score_decoder(level.without_bias(), source).kl, score_decoder(level.stored, source).kl
        gap = own / point.score.kl  # float activations against the engine's
        rows = [("bias", bare, own, 2 * d_model * len(blocks.source.config.blocks))]
        for rank in arguments.ranks:
            decoder, n_bytes = level.with_sides(rank)
            rows.append((f"side tensors of rank {rank}", own, score_decoder(decoder, source).kl, n_bytes))
        for name, before, after, n_bytes in rows:
            label = f"KL at rate {point.rate:.3f}, {name} over none"
            figures.append(Figure(label, after, before, before / after, None, "nats", COMMAND))
            console.print(
                f"rate {point.rate:.3f}, {name}: KL {before:.4f} -> {after:.4f} for {n_bytes / 1e6:.2f} MB; "
                f"as many bytes on the ladder: {gap * on_the_ladder(ladder, point, n_bytes):.4f}"
            )
    console.print(f"wrote {write_figures('repairs', figures)}")


if __name__ == "__main__":
    main()
