"""`run` and `chat` on a device: the deployed edge-run does the work, its streams and exit status come through."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TextIO

import typer

from edgesdk.cli.console import say
from edgesdk.targets.deploy import fastest_backends, find_deployment
from edgesdk.targets.devices import connect, find_device

__all__ = ["run_remotely"]


def run_remotely(
    device: str, given: Path, command: str, options: Mapping[str, object], *, feed: Iterable[bytes] | int
) -> None:
    """Runs `edge-run COMMAND` on a device and leaves with its exit status.

    given: bundle, artifact or name of a deployment; options: name -> value, None and False are left out, True is a
    flag, lists are given again and again; feed: blocks for its stdin, or a file descriptor
    `--backend auto` is what the deployment knows to be the fastest for prompts and for answers, if it can be used; for
    `--adaptive`, which takes the CPU, edge-run chooses.
    Ctrl-C ends the program there too.
    """
    connection = connect(find_device(device))
    deployment = find_deployment(connection, given)
    if options.get("--backend") == "auto" and not (options.get("--adaptive") or options.get("--decode-backend")):
        chosen, why = fastest_backends(connection, deployment)
        options = {**options, **chosen}
        if why:
            say(f"backend {chosen['--backend']}: {why}")
    status = connection.stream(
        deployment.command([command, *_flags(options)]), _writer(sys.stdout), _writer(sys.stderr), feed=feed
    )
    if status:
        raise typer.Exit(status)


def _flags(options: Mapping[str, object]) -> Iterable[str]:
    for name, value in options.items():
        if value is True:
            yield name
        elif isinstance(value, list):
            yield from (f"{name}={item}" for item in value)
        elif value is not None and value is not False:
            yield f"{name}={value}"


def _writer(stream: TextIO) -> Callable[[bytes], None]:
    """Writes bytes as text as they come; a character that was cut waits for its rest."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(data: bytes) -> None:
        stream.write(decoder.decode(data))
        stream.flush()

    return write
