"""The `edgesdk` command: parses and prints; what it does lives in cloud, formats and device."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command (default: the program's own arguments) and returns the exit status: 0 done, 1 error, 2 usage."""
    try:
        from edgesdk.cli.app import run
    except ModuleNotFoundError as missing:
        if missing.name not in {"typer", "rich"}:
            raise
        sys.stderr.write(f"error: the command line needs `{missing.name}`, which is not installed\n")
        sys.stderr.write("hint: pip install 'edgesdk[cli]'\n")
        return 1
    return run(sys.argv[1:] if arguments is None else list(arguments))
