"""`edgesdk devices`: what is attached or named, and what each of them is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer

from edgesdk.cli.console import print_json, print_table, say
from edgesdk.cli.options import Json, examples
from edgesdk.errors import DeviceError
from edgesdk.targets.devices import Device, connect, list_devices
from edgesdk.targets.probe import DeviceInfo, probe

__all__ = ["EXAMPLES", "devices"]

EXAMPLES = examples(
    "edgesdk devices",
    "edgesdk devices --host pi@raspberrypi --json",
)


def devices(
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="Ask this ssh host too: user@name or an alias. May be given again."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List this machine, devices that adb sees, and ssh hosts, with what each of them is.

    Names come from devices.toml, adb and --host. Aliases of ~/.ssh/config are listed, and asked only by --host.
    """
    found, remarks = list_devices(host or [])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda device: _ask(device, asked=device.name in (host or [])), found))
    for remark in remarks:
        say(f"note: {remark}")
    if as_json:
        print_json([_as_dict(device, info, error) for device, (info, error) in zip(found, answers, strict=True)])
        return
    rows = [_row(device, info) for device, (info, _) in zip(found, answers, strict=True)]
    columns = ["name", "by", "state", "cores", "memory", "free", "warmest", "kernel sets", "gpu", "what it is"]
    print_table(f"{len(found)} devices", columns, rows)
    for device, (_, error) in zip(found, answers, strict=True):
        if error is not None:
            say(f"{device.name}: {error.message}" + (f"; {error.hint}" if error.hint else ""))


def _ask(device: Device, *, asked: bool) -> tuple[DeviceInfo | None, DeviceError | None]:
    if device.state == "not asked" and not asked:
        return None, None
    try:
        return probe(connect(device)), None
    except DeviceError as error:
        return None, error


def _state(device: Device, info: DeviceInfo | None) -> str:
    return "ready" if info is not None else "not reached" if device.state == "ready" else device.state


def _as_dict(device: Device, info: DeviceInfo | None, error: DeviceError | None) -> dict[str, Any]:
    return {
        "name": device.name,
        "kind": device.kind,
        "address": device.address,
        "state": _state(device, info),
        "error": None if error is None else {"message": error.message, "hint": error.hint},
        "info": None if info is None else info.as_dict(),
    }


def _row(device: Device, info: DeviceInfo | None) -> list[str]:
    if info is None:
        return [device.name, device.kind, _state(device, info), *[""] * 6, device.model]
    clusters = ", ".join(
        f"{one.n_threads}x {one.core}".strip() + (f" {one.max_mhz / 1000:.1f} GHz" if one.max_mhz else "")
        for one in info.clusters
    )
    celsius = info.condition.celsius
    gpu = f"{info.gpu} ({', '.join(info.gpu_apis)})" if info.gpu_apis and info.gpu else info.gpu
    return [
        device.name,
        device.kind,
        "ready",
        clusters or str(info.n_threads),
        f"{info.memory_bytes / 1e9:.1f} GB",
        f"{info.available_bytes / 1e9:.1f} GB",
        "" if celsius is None else f"{celsius:.0f} °C",
        " ".join(info.isa),
        gpu,
        "; ".join(filter(None, (info.model, info.soc, info.os))),
    ]
