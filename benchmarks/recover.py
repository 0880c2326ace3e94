"""What `--recover` buys: the same ladder with and without it, on the kind of text that it saw and on another.

    python benchmarks/recover.py [--epochs 4] [--windows 8]

Both are calibrated on WikiText-2's validation split; measured are its test split and the text that the second model of
the quality benchmark is tested on (`make train-bench-model` fetches it). Scales are distilled in neither.
Writes build/bench/recover.json; `make bench-recover` runs it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from figures import BENCH, Figure, write_figures
from rich.console import Console
from scores import StoredSource
from subjects import build, find_subject, our_points

from edgesdk.cloud.config import RECOVER_EPOCHS, BuildConfig, preset

RATES = (0.0, 0.05, 0.15, 0.25, 0.35)
FULL_TARGET, TARGET = 1 / 1.01, 1 / 0.75  # KL without over KL with: no worse at rate 0, a quarter less from 0.15 on
COMMAND = "python benchmarks/recover.py"
console = Console(highlight=False, width=150)


def configuration(n_epochs: int) -> BuildConfig:
    """The default ladder in coarse steps."""
    base = preset("default")
    allocate = replace(base.allocate, step=0.05)
    recover = replace(base.recover, n_epochs=n_epochs)
    return replace(base, allocate=allocate, tune=replace(base.tune, n_epochs=0), recover=recover)


def main() -> None:
    """Builds both, measures, writes."""
    parser = argparse.ArgumentParser(description="KL of lower levels with and without recovery")
    parser.add_argument("--epochs", type=int, default=RECOVER_EPOCHS)
    parser.add_argument("--windows", type=int, default=8)
    arguments = parser.parse_args()
    subject = find_subject("smollm2")
    folder = BENCH / "quality" / subject.name
    paths = {
        name: build(f"recover-{epochs}", configuration(epochs), subject, folder)
        for name, epochs in (("without", 0), ("with", arguments.epochs))
    }
    other = BENCH.parent / "bench-model" / "test.txt"
    if not other.is_file():
        raise SystemExit(f"error: no text of another kind: {other}\nhint: run `make train-bench-model` (half an hour)")
    figures = []
    for text in (subject.test, other):
        measured = replace(subject, test=text)
        source = StoredSource.compute(subject.source, measured.windows(arguments.windows), folder, console.print)
        plain, recovered = (our_points(name, path, source, RATES) for name, path in paths.items())
        for before, after in zip(reversed(plain), reversed(recovered), strict=True):
            ratio = before.score.kl / max(after.score.kl, 1e-9)
            target = FULL_TARGET if before.rate == 0 else TARGET if before.rate >= 0.15 else None
            name = f"KL at rate {before.rate:.3f} on {text.name}, with recovery against without"
            figures.append(Figure(name, after.score.kl, before.score.kl, ratio, target, "nats", COMMAND))
            console.print(
                f"{text.name}, rate {before.rate:.3f}: KL {before.score.kl:.4f} -> {after.score.kl:.4f}, "
                f"perplexity {before.score.perplexity:.2f} -> {after.score.perplexity:.2f}"
            )
    console.print(f"wrote {write_figures('recover', figures)}")


if __name__ == "__main__":
    main()
