"""Quality of the ladder on real text, from the neutralised source: ours against uniform and block-influence.

    python benchmarks/ladder.py [--preset default] [--windows 8]

Builds three artifacts that differ only in how they allocate, and compares perplexity (WikiText-2 test, through the
engine) at equal mapped bytes. Writes build/bench/ladder.json. `make bench-ladder` runs it.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from figures import BENCH, Figure, write_figures
from neutral import write_neutral
from rich.console import Console
from rich.table import Table
from texts import evaluation_text

from edgesdk.cli.progress import StepProgress
from edgesdk.cloud.build import build_model
from edgesdk.cloud.config import EvaluateConfig, preset
from edgesdk.formats import Artifact, LevelInfo

METHODS = ("measured", "uniform", "block-influence")
RATES = (0.05, 0.15, 0.25, 0.35)
FULL_TARGET = 1 / 1.05  # perplexity of the source over ours at the full level
COMMAND = "python benchmarks/ladder.py"
console = Console(highlight=False)


def build(method: str, source: Path, preset_name: str, n_windows: int) -> Artifact:
    """Builds one artifact; what does not depend on the allocation is shared through the work directory."""
    base = preset(preset_name)
    config = replace(
        base,
        allocate=replace(base.allocate, method=method),
        evaluate=EvaluateConfig(str(evaluation_text()), n_windows, 1024),
    )
    out = BENCH / "ladder" / f"{preset_name}-{method}"
    console.print(f"building {out.name}")
    with StepProgress() as progress:
        return Artifact.open(build_model(str(source), out, config, work=BENCH / "ladder" / "work", progress=progress))


def perplexity_at(artifact: Artifact, mapped_bytes: int) -> float:
    """Perplexity of a ladder at exactly these bytes: log-linear between its two levels on either side."""
    sizes = [float(level.mapped_bytes) for level in artifact.levels]
    logs = [math.log(level.perplexity or math.nan) for level in artifact.levels]
    return math.exp(float(np.interp(mapped_bytes, sizes, logs)))


def compare(ladders: dict[str, Artifact]) -> list[Figure]:
    """One figure per rate and baseline, and the full level against the float source."""
    ours = ladders["measured"]
    top = ours.levels[-1]
    source = float(ours.edge["evaluation"]["source_perplexity"])
    full = float(top.perplexity or math.nan)
    figures = [
        Figure("perplexity, full level / float32 source", full, source, source / full, FULL_TARGET, "ppl", COMMAND)
    ]
    for rate in RATES:
        level: LevelInfo = ours.level_at_rate(rate)
        mine = float(level.perplexity or math.nan)
        for method in METHODS[1:]:
            theirs = perplexity_at(ladders[method], level.mapped_bytes)
            name = f"perplexity at rate {rate}, {level.mapped_bytes} mapped bytes, against {method}"
            figures.append(Figure(name, mine, theirs, theirs / mine, 1.0, "ppl", COMMAND))
    return figures


def show(ladders: dict[str, Artifact], figures: list[Figure]) -> None:
    """Prints every ladder, then the figures."""
    for method, artifact in ladders.items():
        table = Table("rate", "mapped MB", "file MB", "perplexity", "KL", title=method, title_justify="left", box=None)
        for level in reversed(artifact.levels):
            sizes = f"{level.mapped_bytes / 1e6:.2f}", f"{level.file_bytes / 1e6:.2f}"
            table.add_row(f"{level.rate:.4f}", *sizes, f"{level.perplexity:.2f}", f"{level.kl:.4f}")
        console.print(table)
    for figure in figures:
        verdict = "" if figure.target is None else ("  ok" if figure.ratio >= figure.target else "  MISSED")
        console.print(f"{figure.figure}: {figure.ours:.3f} / {figure.peer:.3f}, ratio {figure.ratio:.4f}{verdict}")


def main() -> None:
    """Builds, compares, writes."""
    parser = argparse.ArgumentParser(description="quality of the ladder against two baselines")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--windows", type=int, default=8)
    arguments = parser.parse_args()
    source = write_neutral(_demo_model(), BENCH.parent / "neutral" / "smollm2.gguf")
    ladders = {m: build(m, source, arguments.preset, arguments.windows) for m in METHODS}
    figures = compare(ladders)
    show(ladders, figures)
    console.print(f"wrote {write_figures('ladder', figures)}")


def _demo_model() -> Path:
    """The GGUF file of the demo model."""
    from edgesdk.cloud.checkpoint import open_checkpoint

    return open_checkpoint("smollm2").source.path


if __name__ == "__main__":
    main()
