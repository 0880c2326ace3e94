"""Options that several commands share, written once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "Adaptive",
    "Artifact",
    "Backend",
    "Budget",
    "Context",
    "DecodeBackend",
    "Json",
    "KvBits",
    "Level",
    "Lock",
    "Rate",
    "Threads",
    "Verify",
    "examples",
    "with_values",
]

_OPTIONAL_VALUES = {"--ray": "auto"}  # typer has no options whose value may be left out

Artifact = Annotated[Path, typer.Argument(metavar="FILE", help="An .edge file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Rate = Annotated[
    float | None,
    typer.Option("--rate", help="Share of block weight bytes to give up; 0 is the full model.", show_default=False),
]
Budget = Annotated[
    str | None, typer.Option("--budget", help="Memory to stay within, such as 80MB or 1GiB.", show_default=False)
]
Level = Annotated[int | None, typer.Option("--level", help="Level by number; 0 is the smallest.", show_default=False)]
Context = Annotated[
    int | None,
    typer.Option("--context", help="Tokens of context. Default: the model's, at most 2048.", show_default=False),
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="Threads. Default: one per physical core.", show_default=False)
]
KvBits = Annotated[int, typer.Option("--kv-bits", help="Bits of the key/value cache: 8 or 16.")]
Lock = Annotated[bool, typer.Option("--lock", help="Keep the weights in memory (mlock).")]
Adaptive = Annotated[
    bool, typer.Option("--adaptive", help="Give levels up while memory is short, and take them back when it is not.")
]
Backend = Annotated[
    Literal["auto", "cpu", "opencl", "cuda"],
    typer.Option("--backend", help="What computes: the CPU, or a GPU through OpenCL or CUDA; auto: whichever can."),
]
DecodeBackend = Annotated[
    Literal["cpu", "opencl", "cuda"] | None,
    typer.Option("--decode-backend", help="What computes answers, where that is not what computes prompts."),
]
Verify = Annotated[
    Literal["lazy", "eager", "off"],
    typer.Option("--verify", help="Check hashes in the background, before the first use, or not."),
]


def with_values(arguments: Sequence[str]) -> list[str]:
    """The arguments, where an option stands without its value with the value that it then has."""
    given = list(arguments)
    for place in range(len(given) - 1, -1, -1):
        last = place + 1 == len(given)
        if given[place] in _OPTIONAL_VALUES and "--" not in given[:place] and (last or given[place + 1][:1] == "-"):
            given.insert(place + 1, _OPTIONAL_VALUES[given[place]])
    return given


def examples(*commands: str) -> str:
    """The text under a command's help: one example a line (typer breaks lines only at empty ones)."""
    return "\n\n".join(("Examples:", *(f"  {command}" for command in commands)))
