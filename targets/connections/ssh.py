"""A device behind the stock `ssh` and `scp`; hosts, keys and ports are those of the user's ssh configuration."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import ClassVar

from edgesdk.errors import DeviceError, UsageError
from edgesdk.targets.connections.connection import Connection
from edgesdk.targets.connections.failures import Failure, explain_failure
from edgesdk.targets.connections.sharing import SharedLink, SharedLinkError

__all__ = ["SshConnection", "ssh_aliases", "ssh_config"]

_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3")
_INSTALL = "install OpenSSH's client (`apt install openssh-client`) so that it is in PATH"
_FAILURES: tuple[Failure, ...] = (
    ("command not found", "`ssh` is not installed, and `{name}` is reached by it", _INSTALL),
    (
        "remote host identification has changed",
        "`{name}` shows another host key than before",
        "if it was set up anew, `ssh-keygen -R HOST` forgets the old key; otherwise do not connect",
    ),
    (
        "host key verification failed",
        "the host key of `{name}` is not known yet",
        "connect once by hand (`ssh {name}`) and accept its key",
    ),
    (
        "permission denied",
        "`{name}` does not let this user in",
        "a key is needed, passwords are never asked: `ssh-copy-id {name}`, then see that `ssh {name} true` works",
    ),
    (
        "could not resolve hostname",
        "`{name}` cannot be resolved",
        "see the spelling, or give its address: user@192.0.2.1",
    ),
    ("connection refused", "`{name}` refuses connections", "see that sshd runs there, and the port in ~/.ssh/config"),
    ("timed out", "`{name}` did not answer", "see that it is on and in the same network"),
    ("no route to host", "there is no way to `{name}`", "see that it is on and in the same network"),
    ("network is unreachable", "there is no way to `{name}`", "see that this machine is in its network"),
    ("connection closed", "`{name}` closed the connection", "see that it is up, then try again"),
    ("connection reset", "`{name}` closed the connection", "see that it is up, then try again"),
)


class SshConnection(Connection):
    """Runs scripts by `ssh`. address: user@host, or an alias of the ssh configuration.

    All calls of a process share one connection to a host, which is opened again when it is gone.
    """

    kind: ClassVar[str] = "ssh"

    def __init__(self, address: str, *, name: str = "", root: str = "") -> None:
        if not address or address.startswith("-") or re.search(r"\s", address):
            raise UsageError(f"`{address}` is no ssh host", hint="give user@host, or an alias of ~/.ssh/config")
        super().__init__(address, name=name, root=root or ".local/share/edgesdk")
        self._link = SharedLink(address, _options())

    def command(self, script: str) -> list[str]:
        """`ssh` without a terminal; `sh` runs the script whatever the login shell is."""
        return ["ssh", "-T", *_options(), *self._shared(), "--", self.address, f"exec sh -c {shlex.quote(script)}"]

    def explain(self, words: str) -> DeviceError:
        """What ssh's words mean."""
        return explain_failure(_FAILURES, self.name, words)

    def pull(self, remote: str, local: Path) -> None:
        """`scp`."""
        try:
            finished = subprocess.run(
                ["scp", "-q", *_options(), *self._shared(), "--", f"{self.address}:{remote}", str(local)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise DeviceError("`scp` is not installed", hint=_INSTALL) from error
        if finished.returncode:
            local.unlink(missing_ok=True)
            said = finished.stderr.decode("utf-8", "replace")
            if "No such file" in said:
                raise DeviceError(f"`{self.name}` has no file `{remote}`")
            raise self.explain(said)

    def _shared(self) -> list[str]:
        try:
            return self._link.options()
        except FileNotFoundError as error:
            raise self.explain("command not found") from error
        except SharedLinkError as error:
            raise self.explain(str(error)) from error


def ssh_config() -> Path:
    """The user's ssh configuration; the environment variable EDGE_SSH_CONFIG names another one."""
    given = os.environ.get("EDGE_SSH_CONFIG")
    return Path(given) if given else Path.home() / ".ssh" / "config"


def ssh_aliases() -> list[str]:
    """Hosts that the ssh configuration names, without its patterns; what it includes is not read."""
    try:
        text = ssh_config().read_text("utf-8", "replace")
    except OSError:
        return []
    found: dict[str, None] = {}
    for line in text.splitlines():
        match = re.match(r"\s*host[\s=]+(.*)", line, re.IGNORECASE)
        for alias in match[1].split() if match else ():
            if not re.search(r"[*?!\"#]", alias):
                found[alias] = None
    return list(found)


def _options() -> list[str]:
    options = [part for option in _OPTIONS for part in ("-o", option)]
    return ["-F", str(ssh_config()), *options] if os.environ.get("EDGE_SSH_CONFIG") else options
