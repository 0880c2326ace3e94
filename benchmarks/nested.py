"""One code for 3 and 4 bits against a code for each: what strictly nested planes cost, optimised for both at once.

    python benchmarks/nested.py [--shares 0 0.1 1] [--layers 0 10 20 29]

A nested 3-bit code is the upper three bits of the 4-bit code; each level has scales and a codebook of its own. Starting
from GPTQ at 4 bits, codes and scales are chosen by coordinate descent for error(4 bits) + share * error(3 bits), both
measured as tr(E M E^T) and relative to what each level has with a code of its own. Prints both errors, as shares of
those, over the weights of a few layers of the neutralised SmolLM2; writes build/bench/nested.json.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import torch
from blocks import Blocks
from figures import Figure, write_figures
from rich.console import Console
from torch import Tensor

from edgesdk.cloud.config import preset
from edgesdk.cloud.pack import QuantizedWeight
from edgesdk.cloud.quantize.block import file_order, quantize_weight
from edgesdk.cloud.quantize.grid import round_scale

ROLES = {"q": "input", "v": "input", "gate": "input", "down": "hidden"}  # and the moment that each reads
PASSES = 3
COMMAND = "python benchmarks/nested.py"
console = Console(highlight=False, width=150)


class Level:
    """One of the two levels of a weight: codebook (16,), by 4-bit code; scales (rows, n_groups)."""

    def __init__(
        self, weight: Tensor, moment: Tensor, codebook: Tensor, codes: Tensor, scales: Tensor, group: int
    ) -> None:
        self.codebook, self.scales, self._moment = codebook, scales, moment
        self.stored = scales.repeat_interleave(group, dim=1)[:, : codes.shape[1]] * codebook[codes]
        self._pull = (weight - self.stored) @ moment  # minus half the gradient

    def enter(self, g: int, part: slice, codes: Tensor) -> None:
        """Fits the scale of a group to its codes."""
        self._part, self._before = part, self.stored[:, part].clone()
        self._inner = self._moment[part, part]
        values = self.codebook[codes]
        change = (self._pull[:, part] * values).sum(1) / ((values @ self._inner) * values).sum(1).clamp_min(1e-30)
        self._scale = self.scales[:, g] = round_scale(self.scales[:, g] + change)
        self.stored[:, part] = self._scale[:, None] * values
        self._local = self._pull[:, part] - (self.stored[:, part] - self._before) @ self._inner

    def errors(self, i: int) -> Tensor:
        """(rows, 16): what each code of the group's column i would cost, up to a constant."""
        best = self.stored[:, self._part.start + i] + self._local[:, i] / self._inner[i, i]
        return self._inner[i, i] * (best[:, None] - self._scale[:, None] * self.codebook).square()

    def choose(self, i: int, codes: Tensor) -> None:
        """Takes these codes (rows,) for column i."""
        value, column = self._scale * self.codebook[codes], self._part.start + i
        self._local -= torch.outer(value - self.stored[:, column], self._inner[i])
        self.stored[:, column] = value

    def leave(self) -> None:
        """Spreads what changed in the group."""
        self._pull -= (self.stored[:, self._part] - self._before) @ self._moment[self._part]


def nest(weight: Tensor, moment: Tensor, four: QuantizedWeight, share: float, damping: float) -> tuple[Tensor, Tensor]:
    """The weight (rows, columns) as its 3-bit and its 4-bit level hold it, codes nested."""
    assert four.codebook is not None
    damped = moment + damping * moment.diagonal().mean() * torch.eye(len(moment))
    codes, columns, group = torch.from_numpy(four.codes).long(), weight.shape[1], four.group
    fine = torch.tensor(four.codebook, dtype=torch.float32)
    coarse = fine.view(8, 2).mean(1).round().repeat_interleave(2)
    start = torch.from_numpy(four.scales).float()
    levels = [Level(weight, damped, book, codes, start.clone(), group) for book in (fine, coarse)]
    for _ in range(PASSES):
        for g, begin in enumerate(range(0, columns, group)):
            part = slice(begin, min(begin + group, columns))
            for level in levels:
                level.enter(g, part, codes[:, part])
            for i in range(part.stop - begin):
                chosen = (levels[0].errors(i) + share * levels[1].errors(i)).argmin(1)
                codes[:, begin + i] = chosen
                for level in levels:
                    level.choose(i, chosen)
            for level in levels:
                level.leave()
    return levels[1].stored, levels[0].stored


def ratios(blocks: Blocks, layer: int, share: float) -> Iterator[tuple[str, float, float]]:
    """Role, and the 3-bit and the 4-bit level's error over that with a code of its own."""
    settings = blocks.config.quantize
    for index in (2 * layer, 2 * layer + 1):
        block, weights = blocks.source.config.blocks[index], blocks.ordered.decoder.block_weights(index)
        moments = blocks.ordered.moments(index)
        for weight in (w for w in block.weights if w.role in ROLES):
            matrix, moment = file_order(block, weight, weights[weight.role]), moments[ROLES[weight.role]]
            apart = {bits: quantize_weight(block, weight.role, weights, moments, settings, bits) for bits in (3, 4)}
            made = nest(matrix, moment, apart[4], share, settings.damping)
            three, four = (
                float((((matrix - held) @ moment) * (matrix - held)).sum()) / (apart[bits].error or math.nan)
                for bits, held in zip((3, 4), made, strict=True)
            )
            yield weight.role, three, four


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description="nested planes against a code for each level")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.1, 1.0])
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 10, 20, 29])
    arguments = parser.parse_args()
    blocks = Blocks(preset("default"))
    figures = []
    for share in arguments.shares:
        found = [one for layer in arguments.layers for one in ratios(blocks, layer, share)]
        for role in (*ROLES, "all"):
            own = [(three, four) for name, three, four in found if role in (name, "all")]
            means = [math.exp(sum(math.log(r[k]) for r in own) / len(own)) for k in (0, 1)]
            console.print(
                f"share {share:g}, {role}: error at 3 bits {means[0]:.2f} x, at 4 bits {means[1]:.2f} x its own code's"
            )
            for bits, mean in zip((3, 4), means, strict=True):
                name = f"error of {role} at {bits} bits, nested with share {share:g} over a code of its own"
                figures.append(Figure(name, mean, 1.0, 1 / mean, None, "x", COMMAND))
    console.print(f"wrote {write_figures('nested', figures)}")


if __name__ == "__main__":
    main()
