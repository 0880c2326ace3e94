"""A device behind the stock `adb` program, over USB or TCP."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgesdk.errors import DeviceError
from edgesdk.targets.connections.connection import Connection
from edgesdk.targets.connections.failures import Failure, explain_failure

__all__ = ["AdbConnection", "AdbDevice", "adb_devices", "parse_adb_devices"]

_ANSWER_S = 20.0
_INSTALL = "install it (`apt install adb`, or Android's platform-tools) so that it is in PATH"
_UDEV = "add a udev rule (`apt install android-sdk-platform-tools-common`), then `adb kill-server` and plug it in again"
_STATES = "device|offline|unauthorized|authorizing|connecting|bootloader|recovery|rescue|sideload|host|no permissions"
_FAILURES: tuple[Failure, ...] = (
    ("command not found", "`adb` is not installed, and `{name}` is reached by it", _INSTALL),
    (
        "unauthorized",
        "`{name}` has not allowed this computer to debug it",
        "unlock it and accept the question it shows; or revoke USB debugging authorizations there and plug it in again",
    ),
    (
        "no permissions",
        "this user may not open `{name}` over USB",
        _UDEV,
    ),
    (
        "insufficient permissions",
        "this user may not open `{name}` over USB",
        _UDEV,
    ),
    (
        "offline",
        "`{name}` is attached but does not answer (offline)",
        "plug it in again, or restart it; then try again",
    ),
    ("not found", "`{name}` is not attached", "`edgesdk devices` lists what is; see that USB debugging is on"),
    (
        "connection refused",
        "`{name}` does not take connections",
        "see that it is on, and that `adb tcpip` was run on it",
    ),
    ("timed out", "`{name}` did not answer", "see that it is on and in the same network"),
    ("no route to host", "there is no way to `{name}`", "see that it is on and in the same network"),
    ("name or service not known", "`{name}` cannot be resolved", "give its address as HOST:PORT"),
    (
        "daemon",
        "the adb server on this machine does not start",
        "run `adb start-server` to see why",
    ),
    ("doesn't support", "`{name}` has an adb that is too old for exit codes", "Android 7 or later is needed"),
)


@dataclass(frozen=True)
class AdbDevice:
    """One line of `adb devices -l`. state: `device` when it is ready; model and product: "" when it does not tell."""

    serial: str
    state: str
    model: str
    product: str


def adb_devices() -> list[AdbDevice]:
    """What adb sees, ready or not; starts its server. Raises DeviceError where adb is missing or does not start."""
    # Streams of its own: a server that this starts would keep ours open for good.
    _adb("start-server", quiet=True)
    return parse_adb_devices(_adb("devices", "-l"))


def parse_adb_devices(text: str) -> list[AdbDevice]:
    """Reads what `adb devices -l` prints."""
    found = []
    for line in text.splitlines():
        match = re.match(rf"(\S+)\s+({_STATES})\b(.*)", line)
        if match is None:
            continue
        fields = dict(re.findall(r"(\w+):(\S+)", match[3]))
        found.append(AdbDevice(match[1], match[2], fields.get("model", ""), fields.get("product", "")))
    return found


class AdbConnection(Connection):
    """Runs scripts by `adb shell`. address: a serial number, or HOST:PORT of a device that listens."""

    kind: ClassVar[str] = "adb"
    marks_end: ClassVar[bool] = True  # `adb shell` of a broken link ends with 0, as if all were well

    def __init__(self, address: str, *, name: str = "", root: str = "") -> None:
        super().__init__(address, name=name, root=root or "/data/local/tmp/edgesdk")

    def command(self, script: str) -> list[str]:
        """`adb shell` without a terminal: bytes come through as they are, stderr and exit status apart."""
        marked = f"sh -c {shlex.quote(script)}\nprintf '\\036%d\\n' $? >&2"
        return [_program(), "-s", self.address, "shell", "-T", marked]

    def explain(self, words: str) -> DeviceError:
        """What adb's words mean."""
        return explain_failure(_FAILURES, self.name, words)

    def check(self) -> None:
        """Looks up the state that adb reports; a device over TCP is connected, again if need be."""
        state = self._state()
        if state != "device" and _is_tcp(self.address):
            if state:
                _adb("disconnect", self.address)
            said = _adb("connect", self.address)
            state = self._state()
            if not state:
                raise self.explain(said)
        if state != "device":
            raise self.explain(state or "not found")
        super().check()

    def pull(self, remote: str, local: Path) -> None:
        """`adb pull`."""
        try:
            finished = subprocess.run(
                [_program(), "-s", self.address, "pull", remote, str(local)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise self.explain("command not found") from error
        if finished.returncode:
            local.unlink(missing_ok=True)
            said = (finished.stdout + finished.stderr).decode("utf-8", "replace").strip()
            if "remote object" in said:
                raise DeviceError(f"`{self.name}` has no file `{remote}`")
            raise self.explain(said)

    def _state(self) -> str:
        """What adb says of it: `device` when it is ready, "" when adb does not see it."""
        return next((device.state for device in adb_devices() if device.serial == self.address), "")


def _is_tcp(address: str) -> bool:
    return re.fullmatch(r".+:\d+", address) is not None


def _program() -> str:
    return os.environ.get("ADB", "adb")


def _adb(*arguments: str, quiet: bool = False) -> str:
    """What adb prints. quiet: its streams are closed."""
    try:
        finished = subprocess.run(
            [_program(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else subprocess.STDOUT,
            timeout=_ANSWER_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise DeviceError("`adb` is not installed", hint=_INSTALL) from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"`adb {arguments[0]}` did not answer for {_ANSWER_S:.0f} s", hint="`adb kill-server`"
        ) from error
    if quiet and finished.returncode:
        raise DeviceError("the adb server on this machine does not start", hint="run `adb start-server` to see why")
    return "" if quiet else finished.stdout.decode("utf-8", "replace")
