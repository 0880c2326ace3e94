"""A device for the stock `adb` program: a small adbd over TCP whose shell runs commands on this machine.

It speaks as much of adb's protocol as the client needs: CNXN, AUTH, OPEN, OKAY, WRTE, CLSE; the services `shell,v2` and
`sync` (STAT, SEND, RECV). `/data/local/tmp` in commands and paths is a scratch folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue

import pytest

HOME = b"/data/local/tmp"
_VERSION, _MAX_DATA = 0x01000001, 1 << 18
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)


class Adbd:
    """Listens on 127.0.0.1:port until `stop`; `start` again is the same device after a reboot.

    authorized: False asks for a key and takes none, as a phone does whose user has not said yes
    silent: takes connections and never answers
    """

    def __init__(self, folder: Path, *, model: str = "Stand_in", authorized: bool = True, silent: bool = False) -> None:
        self.folder = folder
        self.model = model
        self.authorized = authorized
        self.silent = silent
        self.environment = {**os.environ, "HOME": str(folder)}
        self.port = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self._server: socket.socket | None = None
        self._peers: list[socket.socket] = []
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", self.port))
        server.listen()
        self.port = server.getsockname()[1]
        self._server = server
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def stop(self) -> None:
        """Every connection and process ends at once."""
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            self._server = None
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            if self.silent:
                peer.close()  # else the thread that serves it does
        self._peers.clear()
        for process in self.processes:
            if process.poll() is None:
                process.kill()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            self._peers.append(peer)
            if not self.silent:
                threading.Thread(target=_Link(self, peer).serve, daemon=True).start()

    def local(self, data: bytes) -> bytes:
        """A command or path with the phone's folder replaced by the scratch folder."""
        return data.replace(HOME, os.fsencode(self.folder))


class _Link:
    """One connection from an adb server."""

    def __init__(self, adbd: Adbd, peer: socket.socket) -> None:
        self.adbd = adbd
        self._peer = peer
        self._sending = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._next = 1

    def serve(self) -> None:
        try:
            while True:
                command, a, b, data = self._receive()
                self._take(command, a, b, data)
        except (OSError, EOFError):
            for stream in list(self._streams.values()):
                stream.closed()
            self._peer.close()

    def send(self, command: bytes, a: int, b: int, data: bytes = b"") -> None:
        number = int.from_bytes(command, "little")
        header = struct.pack("<6I", number, a, b, len(data), sum(data) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        with self._sending:
            self._peer.sendall(header + data)

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        number, a, b, n_bytes, _, magic = struct.unpack("<6I", self._exactly(24))
        assert magic == number ^ 0xFFFFFFFF
        return number.to_bytes(4, "little"), a, b, self._exactly(n_bytes)

    def _exactly(self, n_bytes: int) -> bytes:
        data = bytearray()
        while len(data) < n_bytes:
            block = self._peer.recv(n_bytes - len(data))
            if not block:
                raise EOFError
            data += block
        return bytes(data)

    def _take(self, command: bytes, a: int, b: int, data: bytes) -> None:
        if command in (b"CNXN", b"AUTH"):
            if not self.adbd.authorized:
                if command == b"CNXN" or a == 2:  # a signature: no known key made it
                    self.send(b"AUTH", 1, 0, os.urandom(20))
                return
            name = self.adbd.model
            banner = f"device::ro.product.name={name};ro.product.model={name};ro.product.device={name};"
            self.send(b"CNXN", _VERSION, _MAX_DATA, f"{banner}features=shell_v2,cmd,stat_v2".encode())
        elif command == b"OPEN":
            stream = self._open(a, data.rstrip(b"\0"))
            if stream is None:
                self.send(b"CLSE", 0, a)
        elif b in self._streams:
            stream = self._streams[b]
            if command == b"WRTE":
                self.send(b"OKAY", b, a)
                stream.incoming.put(data)
            elif command == b"OKAY":
                stream.ready.put(True)
            elif command == b"CLSE":
                self._streams.pop(b, None)
                stream.closed()

    def _open(self, remote: int, service: bytes) -> _Stream | None:
        run: Callable[[_Stream], None]
        if service.startswith(b"shell,v2"):
            command = self.adbd.local(service.partition(b":")[2])
            run = lambda stream: _shell(self.adbd, stream, command)  # noqa: E731
        elif service == b"sync:":
            run = lambda stream: _sync(self.adbd, stream)  # noqa: E731
        else:
            return None
        stream = _Stream(self, self._next, remote)
        self._streams[self._next] = stream
        self._next += 1
        self.send(b"OKAY", stream.local, remote)
        threading.Thread(target=stream.run, args=(run,), daemon=True).start()
        return stream


class _Stream:
    """One service: bytes in order, one packet under way at a time."""

    def __init__(self, link: _Link, local: int, remote: int) -> None:
        self._link = link
        self.local = local
        self._remote = remote
        self.incoming: Queue[bytes] = Queue()
        self.ready: Queue[bool] = Queue()
        self.over = False
        self._rest = b""
        self._writing = threading.Lock()

    def run(self, service: Callable[[_Stream], None]) -> None:
        try:
            service(self)
            self._link.send(b"CLSE", self.local, self._remote)
        except (OSError, EOFError):
            pass

    def closed(self) -> None:
        self.over = True
        self.incoming.put(b"")
        self.ready.put(False)

    def write(self, data: bytes) -> None:
        with self._writing:
            if self.over:
                raise EOFError
            self._link.send(b"WRTE", self.local, self._remote, data)
            if not self.ready.get():
                self.ready.put(False)
                raise EOFError

    def read(self, n_bytes: int) -> bytes:
        while len(self._rest) < n_bytes:
            block = self.incoming.get()
            if not block:
                raise EOFError
            self._rest += block
        data, self._rest = self._rest[:n_bytes], self._rest[n_bytes:]
        return data


def _shell(adbd: Adbd, stream: _Stream, command: bytes) -> None:
    """The protocol of shell v2: packets of a kind, a length and data. Nothing but its pipes ends the command."""
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        cwd=adbd.folder,
        env=adbd.environment,
        start_new_session=True,
    )
    adbd.processes.append(process)

    def give(kind: int, pipe: object) -> None:
        with contextlib.suppress(OSError, EOFError), pipe:
            while data := os.read(pipe.fileno(), 1 << 15):
                stream.write(struct.pack("<BI", kind, len(data)) + data)

    def take() -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                kind, n_bytes = struct.unpack("<BI", stream.read(5))
                data = memoryview(stream.read(n_bytes))
                if kind == _CLOSE_STDIN:
                    break
                while kind == _STDIN and data:
                    data = data[process.stdin.write(data) :]
        with contextlib.suppress(OSError):
            process.stdin.close()

    givers = [
        threading.Thread(target=give, args=pair, daemon=True)
        for pair in ((_STDOUT, process.stdout), (_STDERR, process.stderr))
    ]
    taker = threading.Thread(target=take, daemon=True)
    for thread in (*givers, taker):
        thread.start()
    for thread in givers:
        thread.join()
    status = process.wait()
    stream.write(struct.pack("<BIB", _EXIT, 1, status if status >= 0 else 128 - status))


def _sync(adbd: Adbd, stream: _Stream) -> None:
    while True:
        request, n_bytes = struct.unpack("<4sI", stream.read(8))
        if request == b"QUIT":
            return
        path = adbd.local(stream.read(n_bytes))
        if request in (b"STAT", b"STA2", b"LST2"):
            stream.write(_stat(request, path))
        elif request == b"SEND":
            stream.write(_take_file(stream, path))
        elif request == b"RECV":
            _give_file(stream, path)
        else:
            stream.write(_failed(b"unknown request"))


def _stat(request: bytes, path: bytes) -> bytes:
    try:
        found, error = Path(os.fsdecode(path)).stat(), 0
    except OSError as failed:
        found, error = None, failed.errno or 5
    if request == b"STAT":
        values = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)) if found else (0, 0, 0)
        return struct.pack("<4s3I", request, *values)
    if found is None:
        return struct.pack("<4sI", request, error) + bytes(64)
    ids = (found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size)
    times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
    return struct.pack("<4sIQQIIIIQqqq", request, error, *ids, *times)


def _take_file(stream: _Stream, target: bytes) -> bytes:
    path, _, mode = target.rpartition(b",")
    try:
        with open(path, "wb") as file:
            while True:
                kind, n_bytes = struct.unpack("<4sI", stream.read(8))
                if kind == b"DONE":
                    break
                file.write(stream.read(n_bytes))
        Path(os.fsdecode(path)).chmod(int(mode) & 0o777)
    except OSError as error:
        return _failed(str(error).encode())
    return struct.pack("<4sI", b"OKAY", 0)


def _give_file(stream: _Stream, path: bytes) -> None:
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 16):
                stream.write(struct.pack("<4sI", b"DATA", len(block)) + block)
    except OSError as error:
        stream.write(_failed(str(error).encode()))
        return
    stream.write(struct.pack("<4sI", b"DONE", 0))


def _failed(message: bytes) -> bytes:
    return struct.pack("<4sI", b"FAIL", len(message)) + message


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class AdbServer:
    """A private adb server of the stock client: no device of the machine's own is seen, nor any of its keys used."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("adb")
        if program is None:
            pytest.skip("adb is not installed (apt-get install adb)")
        self.program = program
        self.environment = {
            "ANDROID_ADB_SERVER_PORT": str(free_port()),
            "ADB_MDNS_OPENSCREEN": "0",
            "ADB_LIBUSB": "0",
            "HOME": str(folder),
            "ANDROID_USER_HOME": str(folder / ".android"),
        }

    def stop(self) -> None:
        subprocess.run(
            [self.program, "kill-server"],
            env={**os.environ, **self.environment},
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=20,
        )
