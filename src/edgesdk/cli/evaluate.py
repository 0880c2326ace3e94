"""`edgesdk eval`: quality of levels on a text, measured through the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgesdk
from edgesdk.cli.console import print_json, print_table, size
from edgesdk.cli.options import Artifact as ArtifactPath
from edgesdk.cli.options import Json, examples
from edgesdk.cli.progress import StepProgress
from edgesdk.formats import Artifact

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = examples(
    "edgesdk eval model.edge --text wiki.txt",
    "edgesdk eval model.edge --text wiki.txt --level 0 --level 3 --json",
    "edgesdk eval model.edge --text wiki.txt --source smollm2",
)


def evaluate(
    path: ArtifactPath,
    text: Annotated[Path, typer.Option("--text", help="A text file, or .jsonl with text fields.", show_default=False)],
    level: Annotated[
        list[int] | None, typer.Option("--level", help="Only this level; may be given again.", show_default=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", help="The model it was built from: adds KL and top-1 agreement.", show_default=False),
    ] = None,
    n_windows: Annotated[int, typer.Option("--windows", min=1, help="Windows of text to measure at most.")] = 8,
    window_tokens: Annotated[int, typer.Option("--window-tokens", min=2, help="Tokens in a window.")] = 1024,
    as_json: Json = False,
) -> None:
    """Measure levels on a text, through the engine: perplexity, and against the source KL and top-1 agreement.

    Each window is scored from an empty context, every token but its first. Top-1 agreement is the share of positions
    at which level and source find the same token likeliest.
    """
    from edgesdk.cloud.calibrate import text_windows
    from edgesdk.cloud.checkpoint import open_checkpoint
    from edgesdk.cloud.evaluate import evaluate_levels
    from edgesdk.cloud.families import load_model
    from edgesdk.cloud.reference import Decoder

    artifact = Artifact.open(path)
    levels = [artifact.level(index) for index in (level or range(artifact.n_available_levels))]
    length = min(window_tokens, artifact.edge["model"]["max_context"])
    windows = text_windows(text, edgesdk.load(path, level=0, context=length).tokenize, n_windows, length)
    decoder = None
    if source is not None:
        checkpoint = open_checkpoint(source)
        decoder = Decoder.open(checkpoint, load_model(checkpoint))
    with StepProgress() as progress:
        quality, source_perplexity = evaluate_levels(
            path,
            [chosen.index for chosen in levels],
            windows,
            decoder,
            lambda done, total: progress("evaluate", done, total),
        )
    rows = [
        {
            "index": one.index,
            "rate": one.rate,
            "mapped_bytes": one.mapped_bytes,
            "file_bytes": one.file_bytes,
            "ppl": found.perplexity,
            "kl": found.kl,
            "top1": found.top1,
        }
        for one, found in zip(levels, quality, strict=True)
    ]
    if as_json:
        print_json({"text": str(text), "n_tokens": windows.numel(), "source_ppl": source_perplexity, "levels": rows})
        return
    table = [
        [
            str(one.index),
            f"{one.rate:.3f}",
            size(one.mapped_bytes),
            f"{found.perplexity:.3f}",
            "-" if found.kl is None else f"{found.kl:.4f}",
            "-" if found.top1 is None else f"{found.top1:.1%}",
        ]
        for one, found in zip(levels, quality, strict=True)
    ]
    title = f"{windows.numel()} tokens of {text.name}"
    if source_perplexity is not None:
        title += f"; the source has perplexity {source_perplexity:.3f}"
    print_table(title, ["level", "rate", "mapped", "ppl", "kl", "top-1"], table)
