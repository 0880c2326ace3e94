"""Moves bytes between this process and a program's three streams without ever blocking on one of them."""

from __future__ import annotations

import contextlib
import os
import selectors
from collections.abc import Callable, Iterator
from subprocess import Popen

__all__ = ["END_SIGN", "EndMark", "FirstLine", "Take", "exchange"]

Take = Callable[[bytes], None]

END_SIGN = b"\x1e"
_BLOCK_BYTES = 1 << 16
_END_BYTES = 8


def exchange(
    client: Popen[bytes],
    on_stdout: Take,
    on_stderr: Take,
    *,
    feed: Iterator[bytes] | None = None,
    quiet_s: float | None = None,
) -> None:
    """Hands on what the program prints, as it comes, until both its outputs end.

    feed: what its stdin gets, which must be a pipe then; the pipe is closed behind the last block, and a program that
    stops reading is no error. Raises TimeoutError when no byte moved for `quiet_s` seconds.
    """
    with selectors.DefaultSelector() as selector:
        for stream, take in ((client.stdout, on_stdout), (client.stderr, on_stderr)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, take)
        if feed is not None and client.stdin is not None:
            os.set_blocking(client.stdin.fileno(), False)
            selector.register(client.stdin, selectors.EVENT_WRITE)
        pending = memoryview(b"")
        while selector.get_map():
            ready = selector.select(quiet_s)
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.data is not None:
                    data = os.read(key.fd, _BLOCK_BYTES)
                    if data:
                        key.data(data)
                    else:
                        selector.unregister(key.fileobj)
                    continue
                if not pending and feed is not None:
                    pending = memoryview(next(feed, b""))
                sent = _write(key.fd, pending)
                pending = pending[max(sent, 0) :]
                if sent == 0 and not pending and client.stdin is not None:
                    selector.unregister(key.fileobj)
                    with contextlib.suppress(BrokenPipeError):
                        client.stdin.close()
                elif sent < 0:
                    selector.unregister(key.fileobj)


def _write(descriptor: int, data: memoryview) -> int:
    """Bytes that went out; 0 when there are none to write, -1 when nobody reads any more."""
    if not data:
        return 0
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return -1


class FirstLine:
    """Takes a first line for itself and hands on all that follows it."""

    def __init__(self, rest: Take) -> None:
        self._rest = rest
        self._head = b""
        self.line: bytes | None = None

    def __call__(self, data: bytes) -> None:
        """Takes the next bytes of the stream."""
        if self.line is None:
            self._head += data
            line, end, data = self._head.partition(b"\n")
            if not end:
                return
            self.line = line.strip()
        if data:
            self._rest(data)


class EndMark:
    """Hands on all but a last line that is END_SIGN and an exit status, which it keeps."""

    def __init__(self, rest: Take) -> None:
        self._rest = rest
        self._held = b""

    @property
    def status(self) -> int | None:
        """The exit status; None: the end never came."""
        text = self._held[1:].strip()
        return int(text) if self._held.endswith(b"\n") and text.isdigit() else None

    def __call__(self, data: bytes) -> None:
        """Takes the next bytes of the stream."""
        data = self._held + data
        sign = data.rfind(END_SIGN)
        if sign < 0 or len(data) - sign > _END_BYTES:
            sign = len(data)
        self._held = data[sign:]
        if sign:
            self._rest(data[:sign])
