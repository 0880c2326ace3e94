"""Exports of the demo model, each run in its own runtime beside the artifact's dequantized weights.

    python benchmarks/exports.py [--artifact FILE] [--formats hf,gguf,...] [--rates 0,0.25]   # or: make test-exports

A format whose runtime is not installed is left out, and this says so. llama.cpp: $LLAMA_CPP, or what peer.py built.
Fails when a float variant is further than 1e-3 from the artifact, in units of the largest logit. Speeds are those of
one thread, one token at a time; they say something on a machine that is idle. Writes build/bench/exports-FORMATS.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from figures import BENCH
from peer import peer_folder
from rich.console import Console
from rich.table import Table

from edgesdk.cloud.export import CHECK_PROMPT, CHECK_TOKENS, Exported, export_level, level_texts, level_tokenizer
from edgesdk.cloud.tokenizer import to_tokenizers
from edgesdk.errors import EdgeError
from edgesdk.formats import Artifact
from edgesdk.formats.exports import FORMATS, find_format
from edgesdk.formats.exports.llama_cpp import VARIABLE

ROOT = Path(__file__).parents[1]
TEXT = ROOT / "docs" / "reliability.md"
MAX_ERROR = 1e-3  # of float variants, of the largest logit
CONTEXT = 512
console = Console(highlight=False, width=200)


@dataclass(frozen=True)
class Row:
    """What was found of one export; text: its greedy continuation."""

    level: int
    rate: float
    format: str
    weights: str
    runtime: str
    n_bytes: int
    max_error: float
    max_logit: float
    kl: float
    top1: float
    tokens_per_s: float
    artifact_text: str
    text: str


def row_of(path: Path, rate: float, done: Exported) -> Row:
    """The figures of an export that was checked."""
    found = done.agreement
    assert found is not None
    ours, theirs = level_texts(path, found.ours, found.theirs)
    measured = (found.max_error, found.max_logit, found.kl, found.top1, found.tokens_per_s)
    return Row(done.level, rate, done.format, done.weights, found.runtime, done.n_bytes, *measured, ours, theirs)


def generators(path: Path, done: Exported) -> dict[str, str]:
    """What the generating runtimes above the plain ones say: onnxruntime-genai, ExecuTorch's LLM runner."""
    if done.format == "onnx":
        from edgesdk.formats.exports.onnx import open_genai

        tokenizer = level_tokenizer(Artifact.open(path))
        assert tokenizer is not None
        model = open_genai(done.folder)
        start = time.perf_counter()
        tokens = model.greedy(to_tokenizers(tokenizer).encode(CHECK_PROMPT).ids, CHECK_TOKENS)
        speed = len(tokens) / (time.perf_counter() - start)
        return {f"{model.name}, {speed:.0f} tokens/s with the prompt": level_texts(path, tokens)[0]}
    if done.format == "executorch":
        from edgesdk.formats.exports.executorch import open_runner

        runner = open_runner(done.folder)
        return {"ExecuTorch's LLM runner": json.dumps(runner.generate(CHECK_PROMPT, CHECK_TOKENS), ensure_ascii=False)}
    return {}


def show(rows: list[Row], title: str) -> None:
    """The table."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("format", "weights", "MB", "max error", "of logits to", "KL", "top-1", "tokens/s", "runtime"):
        table.add_column(column, justify="right" if column not in ("format", "weights", "runtime") else "left")
    for row in rows:
        table.add_row(
            row.format,
            row.weights,
            f"{row.n_bytes / 1e6:.1f}",
            f"{row.max_error:.2g}",
            f"{row.max_logit:.1f}",
            f"{row.kl:.4f}" if row.kl > 1e-4 else f"{row.kl:.0e}",
            f"{row.top1:.1%}",
            f"{row.tokens_per_s:.1f}",
            row.runtime,
        )
    console.print(table)


def measure(path: Path, rate: float, formats: list[str], kinds: list[str], n_tokens: int, out: Path) -> list[Row]:
    """All variants of these formats at the level of a rate; kinds: of weights, all of them where it is empty."""
    artifact = Artifact.open(path)
    level = artifact.level_at_rate(rate)
    tokenizer = level_tokenizer(artifact)
    assert tokenizer is not None
    text = to_tokenizers(tokenizer).encode(TEXT.read_text("utf-8")).ids[:n_tokens]
    rows = []
    for name in formats:
        for weights in find_format(name)[0].weights:
            if kinds and weights not in kinds:
                continue
            folder = out / f"{name}-{weights}-{level.index}"
            shutil.rmtree(folder, ignore_errors=True)
            try:
                done = export_level(
                    path, level.index, name, folder, weights=weights, context=CONTEXT, check=True, check_text=text
                )
            except EdgeError as error:
                console.print(f"[bold]left out:[/] {name} {weights}: {error}")
                break
            rows.append(row_of(path, level.rate, done))
            for remark in done.remarks:
                console.print(f"{name}: {remark}", markup=False)
            row = rows[-1]
            console.print(f"level {row.level}, {name} {weights}, {row.runtime}: KL {row.kl:.4f}", markup=False)
            console.print(f"  artifact {row.artifact_text}", markup=False)
            console.print(f"  export   {row.text}", markup=False)
            for what, said in generators(path, done).items():
                console.print(f"  {what}: {said}", markup=False)
            shutil.rmtree(folder)
    show(rows, f"level {level.index}, rate {level.rate:.3f}, {len(text)} tokens of {TEXT.name}")
    return rows


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifact", type=Path, default=ROOT / "build" / "demo" / "smollm2.edge")
    parser.add_argument("--formats", default=",".join(one.name for one in FORMATS))
    parser.add_argument("--weights", default="", help="only these ways to store them")
    parser.add_argument("--rates", default="0,0.25")
    parser.add_argument("--tokens", type=int, default=256, help="of the text that logits are compared on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault(VARIABLE, str(peer_folder()))
    formats, kinds = arguments.formats.split(","), arguments.weights.split(",") if arguments.weights else []
    out = BENCH / "exports"
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for rate in map(float, arguments.rates.split(",")):
        rows += measure(arguments.artifact, rate, formats, kinds, arguments.tokens, out)
    written = BENCH / f"exports-{'-'.join(formats)}.json"
    written.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n", "utf-8")
    far = [row for row in rows if row.weights == "float" and row.max_error > MAX_ERROR * row.max_logit]
    for row in far:
        console.print(f"[bold red]too far:[/] {row.format} at level {row.level}: {row.max_error:.3g}")
    sys.exit(1 if far or not rows else 0)


if __name__ == "__main__":
    main()
