"""Where text goes: data on stdout, talk on stderr; colours only on terminals and never with NO_COLOR."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from edgesdk.device import Backend

__all__ = ["complain", "print_json", "print_table", "say", "say_backend", "size", "stderr_console"]


def stderr_console() -> Console:
    """A console for progress and remarks."""
    return Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A remark for people, on stderr."""
    stderr_console().print(text, markup=False, soft_wrap=True)


def say_backend(backend: Backend) -> None:
    """Which GPU computes, or why `auto` took none; nothing where the CPU was asked for."""
    if backend.name != backend.decode_name:
        say(f"prompts on {backend.name}, answers on {backend.decode_name}: {backend.device} ({backend.driver})")
    elif backend.name != "cpu":
        say(f"backend {backend.name}: {backend.device} ({backend.driver})")
    elif backend.reason:
        say(f"backend cpu: {backend.reason}")


def complain(message: str, hint: str = "") -> None:
    """An error, and on a line of its own a way out."""
    console = stderr_console()
    console.print("[bold red]error:[/] ", end="")
    console.print(message, markup=False, soft_wrap=True)
    if hint:
        console.print("[bold]hint:[/] ", end="")
        console.print(hint, markup=False, soft_wrap=True)


def print_json(value: Any, *, one_line: bool = False) -> None:
    """One JSON value on stdout. NaN and infinity, which JSON does not have, are refused."""
    indent = None if one_line else 2
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: str | None = None) -> None:
    """A title and a table on stdout; numbers stand right, the column of that name (default: the last) left."""
    left = columns[-1] if left is None else left
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    console.print(title, markup=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column == left else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def size(n_bytes: int) -> str:
    """Bytes for people, in MB of 1e6 bytes as budgets are given."""
    return f"{n_bytes / 1e6:.1f} MB"
