"""`edgesdk inspect` and `edgesdk verify`: what is in a file, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgesdk.cli.console import print_json, print_table, say, size
from edgesdk.cli.options import Artifact as ArtifactPath
from edgesdk.cli.options import Json, examples
from edgesdk.errors import UsageError
from edgesdk.formats import Artifact, check_signature, verify_artifact
from edgesdk.formats.ladder import level_table

__all__ = ["INSPECT_EXAMPLES", "VERIFY_EXAMPLES", "inspect", "print_ladder", "verify"]

INSPECT_EXAMPLES = examples(
    "edgesdk inspect model.edge", "edgesdk inspect model.edge --json", "edgesdk inspect model.edge --header"
)
VERIFY_EXAMPLES = examples(
    "edgesdk verify model.edge",
    "edgesdk verify model.edge --json",
    "edgesdk verify model.edge --key key.pub --min-level 3",
    "edgesdk verify model.edge --identity me@example.com --issuer https://accounts.google.com",
)


def inspect(
    path: ArtifactPath,
    as_json: Json = False,
    header: Annotated[bool, typer.Option("--header", help="Print the whole header as JSON.")] = False,
) -> None:
    """Show the model, its ladder of levels, what each level gave up, and where the file came from.

    With --json: the ladder, one object per level, smallest first.
    """
    artifact = Artifact.open(path)
    if header:
        print_json(dict(artifact.edge))
    elif as_json:
        print_json(level_table(artifact))
    else:
        _print_model(artifact)
        print_ladder(artifact)
        _print_origin(artifact)


def verify(
    path: ArtifactPath,
    as_json: Json = False,
    key: Annotated[
        Path | None, typer.Option("--key", help="Also check who signed it: a public key as PEM.", show_default=False)
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            "--identity", help="The same by Sigstore: who signed, such as a mail address.", show_default=False
        ),
    ] = None,
    issuer: Annotated[
        str | None, typer.Option("--issuer", help="URL of who vouches for --identity.", show_default=False)
    ] = None,
    signature: Annotated[
        Path | None, typer.Option("--signature", help="Default: FILE.sig.", show_default=False)
    ] = None,
    min_level: Annotated[
        int, typer.Option("--min-level", min=0, help="The file must hold this level: it was not cut below.")
    ] = 0,
) -> None:
    """Check every rule of the format and every hash, and who signed the file if a key or an identity is given."""
    signed = key is not None or identity is not None or issuer is not None
    if signed:
        check_signature(path, signature, key=key, identity=identity, issuer=issuer)
    elif signature is not None:
        raise UsageError(
            "a signature says nothing without whom to trust", hint="give --key, or --identity and --issuer"
        )
    report = verify_artifact(path, min_level=min_level)
    if as_json:
        print_json(
            {
                "path": str(report.path),
                "n_levels": report.n_levels,
                "n_available_levels": report.n_available_levels,
                "n_runs": report.n_runs,
                "n_bytes": report.n_bytes,
                "signed": signed,
            }
        )
        return
    if report.n_available_levels < report.n_levels:
        say(f"cut file: it holds levels 0 to {report.n_available_levels - 1} of 0 to {report.n_levels - 1}")
    typer.echo(
        f"ok: {report.n_runs} runs, {size(report.n_bytes)}, {report.n_available_levels} levels{', signed' * signed}"
    )


def _print_model(artifact: Artifact) -> None:
    model = artifact.edge["model"]
    kinds = [block["kind"] for block in model["blocks"]]
    blocks = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    typer.echo(f"{model['name']} ({model['family']}), format {artifact.edge['format_version']}")
    sizes = f"d_model {model['d_model']}, vocabulary {model['vocab_size']}, context {model['max_context']}"
    typer.echo(f"{sizes}; blocks: {blocks}")
    for line in _traits(model["blocks"]):
        typer.echo(line)


def _traits(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader of the ladder may wonder about, one line each."""
    windows = sorted({block["window"] for block in blocks if "window" in block})
    lines = []
    if windows:
        n_slide = sum("window" in block for block in blocks)
        sizes = ", ".join(map(str, windows))
        lines.append(f"{n_slide} attention blocks see the last {sizes} tokens; the key/value cache keeps all of them")
    if any(block.get("qk_norm") for block in blocks):
        lines.append("query and key heads stay whole at every level (axis qk): QK-norm divides by all their elements")
    return lines


def print_ladder(artifact: Artifact) -> None:
    """The table of levels for people, on stdout."""
    rows = [
        [
            str(row["index"]),
            f"{row['rate']:.3f}",
            size(row["mapped_bytes"]),
            size(row["file_bytes"]),
            _measured(row["ppl"]),
            _measured(row["kl"]),
            _gave_up(row["gave_up"]),
        ]
        for row in level_table(artifact)
    ]
    title = f"{len(rows)} levels" + _availability(artifact)
    print_table(title, ["level", "rate", "mapped", "file", "ppl", "kl", "gave up"], rows)


def _availability(artifact: Artifact) -> str:
    held = artifact.n_available_levels
    return "" if held == len(artifact.levels) else f", of which this cut file holds 0 to {held - 1}"


def _print_origin(artifact: Artifact) -> None:
    for name in ("evaluation", "provenance"):
        entries = artifact.edge.get(name)
        if isinstance(entries, dict) and entries:
            typer.echo(f"{name}: " + ", ".join(f"{key} {_short(value)}" for key, value in entries.items()))


def _measured(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _gave_up(entries: dict[str, Any]) -> str:
    """Shares as percentages, lists of names as their number; what is whole is left out."""
    parts = [
        f"{value:.0%} of {key}"
        if isinstance(value, float)
        else f"{len(value)} {key}"
        if isinstance(value, list)
        else key
        for key, value in entries.items()
        if value
    ]
    return ", ".join(parts) or "nothing"


def _short(value: Any) -> str:
    if isinstance(value, str):
        return Path(value).name if value.startswith("/") else value[:48]
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)[:60]
