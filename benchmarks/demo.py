"""The demo: one model compiled once, then run at every size from the same file.

    python benchmarks/demo.py --out build/demo

Leaves OUT/smollm2.edge, OUT/levels.json (formats/ladder.py describes it) and OUT/demo.json (speeds and answers).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import edgesdk
from edgesdk.cli.progress import StepProgress
from edgesdk.cloud.config import preset
from edgesdk.formats.ladder import level_table

PROMPT = "What is a neural network? Answer in two sentences."
CONTEXT = 512
console = Console(highlight=False)


def build(model: str, preset_name: str, out: Path) -> Path:
    """Compiles the model, or goes on where an interrupted build stopped; the artifact gets the model's name."""
    start = time.perf_counter()
    with StepProgress() as progress:
        path = edgesdk.build(model, out, preset(preset_name), progress=progress)
    named = out / f"{Path(model).stem}.edge"
    os.replace(path, named)
    console.print(f"built {named} in {time.perf_counter() - start:.0f} s\n")
    return named


def tokens_per_s(path: Path) -> list[float]:
    """Decoding speed of every level, smallest first, measured by the native program."""
    program = Path(edgesdk.__file__).parent / "bin" / "edge-run"
    command = [str(program), "bench", str(path), "--all-levels", "--json", "--runs", "3", "--context", str(CONTEXT)]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return [level["decode_tokens_per_s"] for level in measured["levels"]]


def print_levels(rows: list[dict[str, Any]], speeds: list[float]) -> None:
    """One line per level, largest first."""
    table = Table(title="One file, every size", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("level", "rate", "mapped MB", "file MB", "perplexity", "kl", "tokens/s"):
        table.add_column(column, justify="right")
    for row, speed in reversed(list(zip(rows, speeds, strict=True))):
        quality = [f"{row[key]:.3f}" if row[key] is not None else "-" for key in ("ppl", "kl")]
        sizes = [f"{row[key] / 1e6:.1f}" for key in ("mapped_bytes", "file_bytes")]
        table.add_row(str(row["index"]), f"{row['rate']:.3f}", *sizes, *quality, f"{speed:.1f}")
    console.print(table)


def answer_at_budgets(path: Path, budgets: list[int]) -> list[dict[str, Any]]:
    """The same question within each budget."""
    answers = []
    for budget in budgets:
        model = edgesdk.load(path, budget=budget, context=CONTEXT)
        text = model.chat([{"role": "user", "content": PROMPT}], max_tokens=80, temperature=0.0)
        answers.append(
            {"budget_bytes": budget, "level": model.level, "rate": model.rate, "prompt": PROMPT, "text": text}
        )
        console.print(f"\n[bold]{budget / 1e6:.0f} MB[/] -> level {model.level}, rate {model.rate:.3f}")
        console.print(text.strip(), markup=False)
    return answers


def main() -> None:
    """Builds, measures, asks."""
    parser = argparse.ArgumentParser(description="compile a model once and run it at every size")
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--preset", default="fast")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    path = build(arguments.model, arguments.preset, arguments.out)
    artifact = edgesdk.Artifact.open(path)
    rows = level_table(artifact)
    (arguments.out / "levels.json").write_text(json.dumps(rows, indent=2, allow_nan=False) + "\n", "utf-8")

    speeds = tokens_per_s(path)
    print_levels(rows, speeds)

    model = edgesdk.load(path, level=0, context=CONTEXT)
    needs = [model.estimate(level, CONTEXT).total_bytes for level in (len(rows) - 1, len(rows) // 2, 0)]
    console.print(f"\nOne question at three memory budgets: {PROMPT}", markup=False)
    answers = answer_at_budgets(path, [-(-need // 1_000_000) * 1_000_000 for need in needs])
    report = {
        "levels": [{**row, "tokens_per_s": speed} for row, speed in zip(rows, speeds, strict=True)],
        "answers": answers,
    }
    (arguments.out / "demo.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
