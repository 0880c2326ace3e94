"""`edgesdk eval`: quality of levels on a text, measured through the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import edgesdk
from edgesdk.cli.console import print_json, print_table, size
from edgesdk.cli.options import Artifact as ArtifactPath
from edgesdk.cli.options import Json, examples
from edgesdk.cli.progress import StepProgress
from edgesdk.errors import UsageError
from edgesdk.formats import Artifact

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = examples(
    "edgesdk eval model.edge --text wiki.txt",
    "edgesdk eval model.edge --text wiki.txt --level 0 --level 3 --json",
    "edgesdk eval model.edge --text wiki.txt --source smollm2",
    "edgesdk eval build/model.edge --text build/evaluation.json",
)


def evaluate(
    path: ArtifactPath,
    text: Annotated[
        Path,
        typer.Option(
            "--text",
            help="A text file, .jsonl with text fields, or the evaluation.json of a build.",
            show_default=False,
        ),
    ],
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
    at which level and source find the same token likeliest. On the tokens of the build's own evaluation, the figures
    that the file states stand beside those that are measured.
    """
    from edgesdk.cloud.calibrate import text_windows
    from edgesdk.cloud.checkpoint import open_checkpoint
    from edgesdk.cloud.evaluate import evaluate_levels
    from edgesdk.cloud.families import load_model
    from edgesdk.cloud.reference import Decoder
    from edgesdk.cloud.workdir import fingerprint

    artifact = Artifact.open(path)
    levels = [artifact.level(index) for index in (level or range(artifact.n_available_levels))]
    length = min(window_tokens, artifact.edge["model"]["max_context"])
    windows = text_windows(text, edgesdk.load(path, level=0).tokenize, n_windows, length)
    _check_tokens(int(windows.min()), int(windows.max()), windows.shape[1], artifact.edge["model"])
    stated = fingerprint(windows.tolist()) == artifact.edge["evaluation"].get("windows")
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
            **({"stated_ppl": one.perplexity, "stated_kl": one.kl} if stated else {}),
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
            _figure(found.kl, ".4f"),
            _figure(found.top1, ".1%"),
            *([_figure(one.perplexity, ".3f"), _figure(one.kl, ".4f")] if stated else []),
        ]
        for one, found in zip(levels, quality, strict=True)
    ]
    title = f"{windows.numel()} tokens of {text.name}"
    if source_perplexity is not None:
        title += f"; the source has perplexity {source_perplexity:.3f}"
    heads = ["level", "rate", "mapped", "ppl", "kl", "top-1"]
    print_table(title, [*heads, "stated ppl", "stated kl"] if stated else heads, table)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _check_tokens(lowest: int, highest: int, length: int, model: dict[str, Any]) -> None:
    if lowest < 0 or highest >= model["vocab_size"] or length > model["max_context"]:
        raise UsageError(
            f"the text has windows of {length} tokens with ids up to {highest}; this model takes "
            f"{model['max_context']} tokens with ids below {model['vocab_size']}",
            hint="these windows were made for another model",
        )
