"""The price of elasticity: how far levels fall behind as the file may grow less.

    python benchmarks/growth.py [--growth 0 0.15 0.3 0.6] [--windows 8]

Lower bits of a weight are a version of their own, which costs file bytes. The same ladder is built with several limits
of growth and once without any: there each level has every version that it wants, quantized from the float weights as
for a file of its own. A level's gap is its perplexity over the unlimited ladder's at the same mapped bytes. Scales are
not distilled, so that ladders differ in nothing else. Writes build/bench/growth.json; `make bench-growth` runs it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from figures import BENCH, Figure, write_figures
from rich.console import Console
from rich.table import Table
from scores import StoredSource
from subjects import build, find_subject, our_points
from verdicts import Point, perplexity_at

from edgesdk.cloud.config import BuildConfig, preset

UNLIMITED = 100.0
RATES = (0.0, 0.1, 0.2, 0.3, 0.4)
FULL_TARGET, TARGET = 1 / 1.01, 1 / 1.03
COMMAND = "python benchmarks/growth.py"
console = Console(highlight=False, width=150)


def configuration(growth: float) -> BuildConfig:
    """The default ladder in coarse steps, within a file that may grow by this share of its full level."""
    base = preset("default")
    allocate = replace(base.allocate, max_file_growth=growth, max_rate=0.6, step=0.05)
    return replace(base, allocate=allocate, tune=replace(base.tune, n_epochs=0))


def compare(ladders: dict[float, list[Point]]) -> list[Figure]:
    """One figure per limit and level; the full level of every file is the same."""
    free = ladders[UNLIMITED]
    figures = []
    for growth, ladder in ladders.items():
        for level in ladder if growth != UNLIMITED else ():
            ours, theirs = level.score.perplexity, perplexity_at(free, level.mapped_bytes)
            target = FULL_TARGET if level.rate == 0 else TARGET
            name = f"perplexity at rate {level.rate:.3f}, file growth {growth:.0%}"
            figures.append(Figure(name, ours, theirs, theirs / ours, target if growth >= 0.6 else None, "ppl", COMMAND))
    return figures


def show(ladders: dict[float, list[Point]]) -> None:
    """Prints each ladder with its gaps."""
    free = ladders[UNLIMITED]
    for growth, ladder in ladders.items():
        title = "any growth" if growth == UNLIMITED else f"growth {growth:.0%}"
        heads = ("rate", "mapped MB", "file MB", "perplexity", "KL", "gap")
        table = Table(*heads, title=title, title_justify="left", box=None)
        for p in reversed(ladder):
            gap = p.score.perplexity / perplexity_at(free, p.mapped_bytes) - 1
            sizes = f"{p.mapped_bytes / 1e6:.2f}", f"{p.file_bytes / 1e6:.2f}"
            table.add_row(f"{p.rate:.3f}", *sizes, f"{p.score.perplexity:.2f}", f"{p.score.kl:.4f}", f"{gap:+.1%}")
        console.print(table)


def main() -> None:
    """Builds, measures, writes."""
    parser = argparse.ArgumentParser(description="what a limit of the file's growth costs")
    parser.add_argument("--growth", type=float, nargs="+", default=[0.0, 0.15, 0.3, 0.6])
    parser.add_argument("--windows", type=int, default=8)
    arguments = parser.parse_args()
    subject = find_subject("smollm2")
    folder = BENCH / "quality" / subject.name
    source = StoredSource.compute(subject.source, subject.windows(arguments.windows), folder, console.print)
    ladders: dict[float, list[Point]] = {}
    for growth in (*arguments.growth, UNLIMITED):
        path = build(f"growth-{growth:g}", configuration(growth), subject, folder)
        # More levels of the unlimited ladder: the others' bytes lie between them.
        ladders[growth] = our_points(f"growth {growth:g}", path, source, None if growth == UNLIMITED else RATES)
    show(ladders)
    console.print(f"wrote {write_figures('growth', compare(ladders))}")


if __name__ == "__main__":
    main()
