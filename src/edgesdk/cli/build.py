"""`edgesdk build`: compiles a model into OUT/model.edge and OUT/build.json."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import edgesdk
from edgesdk.cli.console import print_json, say, size, stderr_console
from edgesdk.cli.options import Json, examples
from edgesdk.errors import MissingExtraError

__all__ = ["EXAMPLES", "build"]

EXAMPLES = examples(
    "edgesdk build smollm2 -o out",
    "edgesdk build ./my-model --preset fast -o out",
    "edgesdk build hf:org/name --eval-text wiki.txt -o out",
    "edgesdk build model.gguf -o out --json",
)


def build() -> None: ...
