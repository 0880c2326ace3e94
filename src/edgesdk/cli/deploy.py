"""`edgesdk deploy`: puts a bundle on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesdk.cli.console import print_json, say, size
from edgesdk.cli.options import Json, examples
from edgesdk.cli.progress import StepProgress
from edgesdk.device.model import parse_bytes
from edgesdk.targets.deploy import deploy as deploy_bundle
from edgesdk.targets.deploy import read_bundle
from edgesdk.targets.devices import connect, find_device

__all__ = ["EXAMPLES", "deploy"]

EXAMPLES = examples(
    "edgesdk deploy out/android --device R5CT20ABCDE",
    "edgesdk deploy out/raspberry-pi-5 --device pi@raspberrypi --level 2",
    "edgesdk deploy out/jetson --device orin --budget 120MB --json",
)


def deploy(
    bundle: Annotated[
        Path,
        typer.Argument(metavar="BUNDLE", help="A folder OUT/TARGET of edgesdk build --targets.", show_default=False),
    ],
    device: Annotated[
        str,
        typer.Option("--device", "-d", metavar="NAME", help="A name that edgesdk devices shows.", show_default=False),
    ],
    level: Annotated[
        int | None,
        typer.Option("--level", help="Push only what this level and smaller ones need.", show_default=False),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="Likewise, for the largest level that runs within this.", show_default=False),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", help="Its name on the device. Default: the artifact's.", show_default=False)
    ] = "",
    as_json: Json = False,
) -> None:
    """Put a bundle on a device: push what it lacks, check every hash there, start the program once.

    A push that was broken off goes on where it stopped. Files on the device are whole or not there.
    """
    read = read_bundle(bundle)
    budget_bytes = None if budget is None else parse_bytes(budget)
    with StepProgress() as progress:
        done = deploy_bundle(
            read, connect(find_device(device)), name=name, level=level, budget_bytes=budget_bytes, progress=progress
        )
    deployed = done.deployment
    if as_json:
        print_json(
            {
                "device": device,
                "name": deployed.name,
                "folder": deployed.folder,
                "level": deployed.level,
                "file_bytes": deployed.file_bytes,
                "sent_bytes": done.sent_bytes,
                "version": done.version,
            }
        )
        return
    say(f"pushed {size(done.sent_bytes)}; `{deployed.name}` holds levels 0 to {deployed.level} in {deployed.folder}")
    typer.echo(deployed.folder)
