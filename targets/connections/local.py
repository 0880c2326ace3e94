"""This machine as a device."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import ClassVar

from edgesdk.errors import DeviceError
from edgesdk.targets.connections.connection import Connection

__all__ = ["LocalConnection"]


class LocalConnection(Connection):
    """Runs scripts here. root: by default `edgesdk` in the user's data folder."""

    kind: ClassVar[str] = "local"

    def __init__(self, address: str = "local", *, name: str = "local", root: str = "") -> None:
        data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        super().__init__(address, name=name, root=root or f"{data}/edgesdk")

    def command(self, script: str) -> list[str]:
        """`sh` itself."""
        return ["sh", "-c", script]

    def explain(self, words: str) -> DeviceError:
        """Only a machine without `sh` gets here."""
        return DeviceError(f"this machine cannot run scripts: {words.strip()}", hint="install a POSIX shell as `sh`")

    def pull(self, remote: str, local: Path) -> None:
        """Copies a file."""
        try:
            shutil.copyfile(remote, local)
        except OSError as error:
            raise DeviceError(f"cannot copy `{remote}`: {error.strerror}") from error

    def stop(self, client: subprocess.Popen[bytes], pid: int) -> None:  # noqa: ARG002
        """The process is a child of this one."""
        client.send_signal(signal.SIGINT)
        try:
            client.wait(timeout=3)
        except subprocess.TimeoutExpired:
            client.kill()
