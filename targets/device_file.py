"""devices.toml: the user's own names for devices.

[pi]
kind = "ssh"                  # ssh, adb or local
address = "me@raspberrypi"    # ssh: user@host or an alias of ~/.ssh/config; adb: serial number or HOST:PORT
root = "/srv/edgesdk"         # optional: the folder on the device for what is deployed
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["NamedDevice", "device_file", "read_device_file"]

_KEYS = {"kind", "address", "root"}
_KINDS = ("local", "adb", "ssh")


@dataclass(frozen=True)
class NamedDevice:
    """One table of devices.toml. root: "" is the default of its kind."""

    name: str
    kind: str
    address: str
    root: str


def device_file() -> Path:
    """Where it lies: EDGE_DEVICES, or edgesdk/devices.toml in the user's configuration folder."""
    given = os.environ.get("EDGE_DEVICES")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgesdk" / "devices.toml"


def read_device_file(path: Path | None = None) -> list[NamedDevice]:
    """All devices of the file, in its order; none where there is no file.

    Raises UsageError that names every mistake at once.
    """
    path = path or device_file()
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot read `{path}`: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"`{path}` is no TOML: {error}", hint="docs/devices.md shows one") from error
    problems: list[str] = []
    devices = [_device(name, table, problems) for name, table in tables.items()]
    if problems:
        raise UsageError(f"`{path}`: {'; '.join(problems)}", hint="docs/devices.md shows one")
    return devices


def _device(name: str, table: Any, problems: list[str]) -> NamedDevice:
    if not isinstance(table, dict):
        problems.append(f"`{name}` is {table!r}, expected a table [{name}]")
        return NamedDevice(name, "", "", "")
    problems += [f"`{name}.{key}` is unknown" for key in table if key not in _KEYS]
    kind, address, root = (table.get(key, "") for key in ("kind", "address", "root"))
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or name in {"all", "local"}:
        problems.append(
            f"`{name}` cannot be a name: letters, digits, `.`, `_` and `-` make one, `all` and `local` are taken"
        )
    if kind not in _KINDS:
        problems.append(f"`{name}.kind` is {kind!r}, expected one of {', '.join(_KINDS)}")
    if not isinstance(address, str) or (not address and kind != "local"):
        problems.append(f"`{name}.address` is {address!r}, expected text")
    if not isinstance(root, str) or not re.fullmatch(r"[A-Za-z0-9._/-]*", root):
        problems.append(f"`{name}.root` is {root!r}, expected a path of letters, digits, `.`, `_`, `-` and `/`")
    return NamedDevice(name, str(kind), str(address), str(root))
