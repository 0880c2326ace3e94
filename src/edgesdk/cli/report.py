"""`edgesdk report`: a page with pictures of what artifacts reach and what their levels gave up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesdk.cli.console import print_json
from edgesdk.cli.options import Json, examples
from edgesdk.errors import UsageError
from edgesdk.report import write_report

__all__ = ["EXAMPLES", "report"]

EXAMPLES = examples(
    "edgesdk report model.edge -o report",
    "edgesdk report default.edge width.edge --compare llama.cpp=quality.json -o report",
    "edgesdk report model.edge --level 3 -o report",
)


def report(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help=".edge files.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for index.html and PNGs.", show_default=False)],
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare",
            metavar="NAME=JSON",
            help="Points to draw beside: a list of {name, mapped_bytes, file_bytes, perplexity, kl}, "
            "or the output of edgesdk eval --json. May be given again.",
            show_default=False,
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option("--level", help="Level whose bits are shown. Default: the full one.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a page with pictures: quality against bytes, what each level gave up per block, bits of each weight.

    The page needs no network and no script; every figure in a picture stands in a table as well.
    """
    written = write_report(paths, out, compare=_named(compare or []), level=level)
    if as_json:
        print_json({"page": str(written.page), "pictures": [str(picture) for picture in written.pictures]})
    else:
        typer.echo(str(written.page))


def _named(given: list[str]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for text in given:
        name, _, path = text.partition("=")
        if not name or not path or name in named:
            raise UsageError(f"--compare got {text!r}", hint="write NAME=FILE.json, every name once")
        named[name] = Path(path)
    return named
