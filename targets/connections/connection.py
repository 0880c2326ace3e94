"""What every way to a device can do: run a script by `sh`, with streamed output and an exit status, and end it."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgesdk.errors import DeviceError
from edgesdk.targets.connections.streams import EndMark, FirstLine, Take, exchange

__all__ = ["Connection", "Finished"]

_LINK_LOST = 255  # the exit status of `ssh` when the link broke; edge-run and sh never end with it
_STOP = """kill -INT {pid} 2>/dev/null
n=0
while kill -0 {pid} 2>/dev/null; do
  n=$((n + 1))
  if [ $n -gt 30 ]; then kill -KILL {pid}; break; fi
  sleep 0.1
done"""


@dataclass(frozen=True)
class Finished:
    """A script that ended, and all that it printed."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Stdout as text; what is no UTF-8 becomes U+FFFD."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def words(self) -> str:
        """Stderr as one line of text."""
        return " ".join(self.stderr.decode("utf-8", "replace").split())


class Connection(ABC):
    """One device. No call depends on what another left open, so a device that went away and came back just works again.

    name: what the user calls it; address: what the transport calls it; root: folder there for what is deployed
    """

    kind: ClassVar[str]
    marks_end: ClassVar[bool] = False  # whether `command` makes the script's stderr end in its status (EndMark)

    def __init__(self, address: str, *, name: str = "", root: str = "") -> None:
        self.address = address
        self.name = name or address
        self.root = root

    @abstractmethod
    def command(self, script: str) -> list[str]:
        """The program on this machine, with its arguments, that runs `script` by `sh` on the device."""

    @abstractmethod
    def explain(self, words: str) -> DeviceError:
        """The error behind what the transport's own program said when it could not run a script."""

    @abstractmethod
    def pull(self, remote: str, local: Path) -> None:
        """Copies a file from the device. Raises DeviceError, and leaves no half file then."""

    def check(self) -> None:
        """Raises DeviceError unless the device answers; connects again where that is needed."""
        self.run("true")

    def run(self, script: str, *, data: bytes = b"", quiet_s: float | None = 30.0) -> Finished:
        """Runs a script to its end. data: its stdin. Raises DeviceError, also after `quiet_s` seconds of silence."""
        out, err = bytearray(), bytearray()
        status = self.stream(script, out.extend, err.extend, feed=(data,) if data else (), quiet_s=quiet_s)
        return Finished(status, bytes(out), bytes(err))

    def remove(self, *remotes: str) -> None:
        """Removes files and folders; those that are not there are no error. Raises DeviceError."""
        finished = self.run("rm -rf -- " + " ".join(map(shlex.quote, remotes)))
        if finished.status:
            raise DeviceError(f"`{self.name}` cannot remove files: {finished.words}")

    def stream(
        self,
        script: str,
        on_stdout: Take,
        on_stderr: Take,
        *,
        feed: Iterable[bytes] | int = (),
        quiet_s: float | None = None,
    ) -> int:
        """Runs a script, hands on its output as it comes, and returns its exit status.

        feed: blocks for its stdin, or a file descriptor of this process that becomes its stdin
        A script that ends in `exec PROGRAM` hands its process on: whatever ends this call early, Ctrl-C or an exception
        of a callback, then ends the program on the device. Raises DeviceError when the device cannot be reached, when
        the link breaks, and when no byte moved for `quiet_s` seconds.
        """
        words, early = bytearray(), bytearray()

        def listen(data: bytes) -> None:
            words[:] = (words + data)[-4096:]
            early.extend(data)
            if head.line is not None:  # the script runs: these are not the transport's words of why it does not
                end(bytes(early))
                early.clear()

        head, end = FirstLine(on_stdout), EndMark(on_stderr)
        client = self._launch(f"echo $$\n{script}", feed if isinstance(feed, int) else subprocess.PIPE)
        try:
            exchange(client, head, listen, feed=None if isinstance(feed, int) else iter(feed), quiet_s=quiet_s)
            status = client.wait(timeout=quiet_s)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise DeviceError(
                f"`{self.name}` did not answer for {quiet_s:.0f} s",
                hint="see that it is awake and connected, then try again",
            ) from error
        finally:
            self._close(client, head.line)
        if head.line is None:
            raise self.explain(words.decode("utf-8", "replace"))
        listen(b"")
        if self.marks_end and end.status is not None:
            return end.status
        if self.marks_end or (status == _LINK_LOST and self.kind != "local"):
            raise self.lost(words.decode("utf-8", "replace"))
        return 128 - status if status < 0 else status

    def lost(self, words: str) -> DeviceError:
        """The error of a link that broke while a script ran."""
        said = " ".join(words.split())[-200:]
        return DeviceError(
            f"the connection to `{self.name}` broke" + (f": {said}" if said else ""),
            hint="see that the device is on and connected, then run the command again",
        )

    def stop(self, client: subprocess.Popen[bytes], pid: int) -> None:  # noqa: ARG002
        """Ends the process `pid` on the device: SIGINT, and SIGKILL after three seconds."""
        with contextlib.suppress(DeviceError):  # a device that is gone: the program ends at its next write
            self.run(_STOP.format(pid=pid), quiet_s=10)

    def _launch(self, script: str, stdin: int) -> subprocess.Popen[bytes]:
        command = self.command(script)
        try:
            # A session of its own: the terminal's Ctrl-C reaches this process alone, which then ends the remote one.
            return subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, start_new_session=True
            )
        except FileNotFoundError as error:
            raise self.explain(f"{command[0]}: command not found") from error

    def _close(self, client: subprocess.Popen[bytes], line: bytes | None) -> None:
        for stream in (client.stdin, client.stdout, client.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        if client.poll() is None:
            if line is not None and line.isdigit():
                self.stop(client, int(line))
            client.terminate()
        try:
            client.wait(timeout=5)
        except subprocess.TimeoutExpired:
            client.kill()
            client.wait()
