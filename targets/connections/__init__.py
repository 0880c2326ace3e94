"""Ways to a device: this machine, a phone over `adb`, a board over `ssh`; all run `sh` scripts and move files."""

from __future__ import annotations

from edgesdk.targets.connections.adb import AdbConnection
from edgesdk.targets.connections.connection import Connection, Finished
from edgesdk.targets.connections.local import LocalConnection
from edgesdk.targets.connections.push import push_bytes, push_file
from edgesdk.targets.connections.ssh import SshConnection

__all__ = [
    "AdbConnection",
    "Connection",
    "Finished",
    "LocalConnection",
    "SshConnection",
    "push_bytes",
    "push_file",
]
