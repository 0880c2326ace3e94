"""One connection to a host for all calls of a process: OpenSSH's own sharing, with its sockets in a private folder."""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

__all__ = ["SharedLink", "SharedLinkError"]

_IDLE_S = 60  # a process that was killed leaves its connection open for so long
_OPEN_S = 60.0
_LONGEST_PATH = 84  # a socket's path has at most 107 characters, and ssh appends 17 of its own while it opens one


class SharedLinkError(Exception):
    """What ssh said when it could not connect."""


class SharedLink:
    """The connection to one host that calls of ssh and scp share. options: what ssh is called with anyway.

    Where the user's own configuration shares connections, that is left to it. Where ours is not there, every call just
    connects by itself.
    """

    def __init__(self, address: str, options: Sequence[str]) -> None:
        self._address = address
        self._options = tuple(options)
        self._socket: Path | None = None
        self._asked = False
        self._lock = threading.Lock()

    def options(self) -> list[str]:
        """Options by which ssh and scp use the shared connection, which is opened here if it is not open.

        Raises SharedLinkError when the host cannot be reached, FileNotFoundError where there is no ssh.
        """
        with self._lock:
            if not self._asked:
                self._socket, self._asked = self._find_socket(), True
            if self._socket is None:
                return []
            if not self._socket.exists():
                self._open(self._socket)
        return ["-o", f"ControlPath={self._socket}", "-o", "ControlMaster=no"]

    def _find_socket(self) -> Path | None:
        """One for each host as the configuration has it. None: the user's own, or none can be made."""
        command = ["ssh", "-G", *self._options, "--", self._address]
        found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        own = re.search(rb"^controlpath (?!none$)", found.stdout, re.MULTILINE)
        if found.returncode or own:
            return None
        return _sockets.path(hashlib.sha256(found.stdout).hexdigest()[:16])

    def _open(self, socket: Path) -> None:
        """A call that does nothing and leaves its connection behind. Its words go to a file: the process that stays
        would keep a pipe open.
        """
        sharing = ("-o", "ControlMaster=yes", "-o", f"ControlPersist={_IDLE_S}", "-o", f"ControlPath={socket}")
        command = ["ssh", "-T", *self._options, *sharing, "--", self._address, "exit"]
        with tempfile.TemporaryFile() as words:
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, timeout=_OPEN_S, check=False
                )
            except subprocess.TimeoutExpired as error:
                raise SharedLinkError("timed out") from error
            words.seek(0)
            if done.returncode == 255 and not socket.exists():
                raise SharedLinkError(words.read().decode("utf-8", "replace"))
        _sockets.close_later(socket, self._address)


class _Sockets:
    """The folder of this process's sockets, and what is behind them; all are closed when the process ends."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._open: dict[Path, str] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()

    def path(self, name: str) -> Path | None:
        """Where a socket of this name lies, None where its path would be too long."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="edgesdk-"))
                atexit.register(self._close)
        path = self._folder / name
        return path if len(os.fsencode(path)) <= _LONGEST_PATH else None

    def close_later(self, socket: Path, address: str) -> None:
        """Remembers a connection."""
        with self._lock:
            self._open[socket] = address

    def _close(self) -> None:
        if os.getpid() != self._process or self._folder is None:
            return
        for socket, address in self._open.items():
            if socket.exists():
                command = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "--", address]
                quiet = subprocess.DEVNULL
                subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


_sockets = _Sockets()
