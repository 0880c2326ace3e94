"""`edgesdk eval`: perplexity of levels on a text, measured through the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesdk.cli.console import print_json, print_table, size
from edgesdk.cli.options import Artifact, Json, examples
from edgesdk.errors import MissingExtraError

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = examples(
    "edgesdk eval model.edge --text wiki.txt", "edgesdk eval model.edge --text wiki.txt --level 0 --level 3 --json"
)


def evaluate(
    path: Artifact,
    text: Annotated[Path, typer.Option("--text", help="A text file (UTF-8).", show_default=False)],
    level: Annotated[
        list[int] | None, typer.Option("--level", help="Only this level; may be given again.", show_default=False)
    ] = None,
    n_windows: Annotated[int, typer.Option("--windows", min=1, help="Windows of text to measure.")] = 8,
    window_tokens: Annotated[int, typer.Option("--window-tokens", min=2, help="Tokens in a window.")] = 1024,
    as_json: Json = False,
) -> None:
    """Measure the perplexity of levels on a text, through the engine."""
