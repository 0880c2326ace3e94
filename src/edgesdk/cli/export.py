"""`edgesdk export`: a level of an artifact as a folder for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import edgesdk
from edgesdk.cli.console import print_json, say, size
from edgesdk.cli.options import Artifact as ArtifactPath
from edgesdk.cli.options import Budget, Context, Json, Level, Rate, examples
from edgesdk.errors import UsageError
from edgesdk.formats import Artifact
from edgesdk.formats.exports import DEFAULT_OPSET, FORMATS

if TYPE_CHECKING:
    from edgesdk.formats.exports import Agreement

__all__ = ["EXAMPLES", "export"]

EXAMPLES = examples(
    "edgesdk export model.edge --to gguf -o out/gguf",
    "edgesdk export model.edge --rate 0.25 --to executorch -o out/pte --check",
    "edgesdk export model.edge --level 3 --to onnx --weights float -o out/onnx",
    "edgesdk export model.edge --budget 80MB --to hf -o out/hf --json",
)

_WEIGHTS = "; ".join(f"{one.name}: {', '.join(one.weights)}" for one in FORMATS)


def export(
    path: ArtifactPath,
    to: Annotated[
        str,
        typer.Option("--to", metavar="FORMAT", help=f"{', '.join(f.name for f in FORMATS)}.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write, which must not exist.", show_default=False)
    ],
    level: Level = None,
    rate: Rate = None,
    budget: Budget = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help=f"How weights are stored, the default first. {_WEIGHTS}.", show_default=False),
    ] = None,
    context: Context = None,
    static: Annotated[
        bool, typer.Option("--static", help="executorch: a program for one token at a time, not for any number.")
    ] = False,
    opset: Annotated[int, typer.Option("--opset", help="onnx: the version of the operators.")] = DEFAULT_OPSET,
    check: Annotated[
        bool,
        typer.Option("--check", help="Run it in its runtime, beside the artifact, and say how far apart they are."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write one level for another runtime. Without --level, --rate or --budget: the largest level of the file.

    Weights come from the artifact's own codes; a format that rounds them again does so in its own way. With --check
    the export runs where it is for: error of logits, KL, top-1 agreement, and a greedy text of both side by side.
    """
    chosen = _level(path, level, rate, budget)
    from edgesdk.cloud.export import export_level, level_texts

    done = export_level(
        path, chosen, to, out, weights=weights, context=context, dynamic=not static, opset=opset, check=check
    )
    for remark in done.remarks:
        say(remark)
    if as_json:
        print_json(
            {
                "folder": str(done.folder),
                "format": done.format,
                "weights": done.weights,
                "level": done.level,
                "n_bytes": done.n_bytes,
                "remarks": list(done.remarks),
                "check": None if done.agreement is None else _figures(done.agreement),
            }
        )
        return
    typer.echo(f"wrote level {done.level} as {done.format} ({done.weights}) to {done.folder}, {size(done.n_bytes)}")
    if done.agreement is not None:
        _print_agreement(done.agreement, level_texts(path, done.agreement.ours, done.agreement.theirs))


def _level(path: Path, level: int | None, rate: float | None, budget: str | None) -> int:
    """The level that is meant. Raises UsageError for one that does not exist, and MemoryBudgetError."""
    given = {"--level": level, "--rate": rate, "--budget": budget}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} were given together", hint="give one of --level, --rate, --budget")
    artifact = Artifact.open(path)
    if level is not None:
        return artifact.level(level).index
    if rate is not None:
        return artifact.level_at_rate(rate).index
    if budget is not None:
        with edgesdk.load(path, budget=budget, verify="off") as model:
            return model.level
    return artifact.n_available_levels - 1


def _figures(agreement: Agreement) -> dict[str, Any]:
    return {
        "runtime": agreement.runtime,
        "n_tokens": agreement.n_tokens,
        "max_error": agreement.max_error,
        "max_logit": agreement.max_logit,
        "kl": agreement.kl,
        "top1": agreement.top1,
        "greedy_artifact": agreement.ours,
        "greedy_export": agreement.theirs,
        "tokens_per_s": agreement.tokens_per_s,
    }


def _print_agreement(agreement: Agreement, texts: tuple[str, ...]) -> None:
    typer.echo(
        f"{agreement.runtime}, {agreement.n_tokens} tokens: max error {agreement.max_error:.2g} of logits up to "
        f"{agreement.max_logit:.1f}, KL {agreement.kl:.4f}, top-1 {agreement.top1:.1%}, "
        f"{agreement.tokens_per_s:.1f} tokens/s"
    )
    typer.echo(f"artifact: {texts[0]}")
    typer.echo(f"export:   {texts[1]}")
