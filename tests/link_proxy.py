"""A TCP link that can be cut: passes bytes on to a port of this machine until it is told, or until so many went by."""

from __future__ import annotations

import contextlib
import socket
import threading


class LinkProxy:
    """Listens on 127.0.0.1:port. cut_after: bytes towards the device after which every connection breaks, once."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.cut_after: int | None = None
        self.n_cuts = 0
        self._passed = 0
        self._sockets: list[socket.socket] = []
        self._server = socket.socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.bind(("127.0.0.1", 0))
        self._server.listen()
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Breaks every connection that is open; new ones are taken."""
        self.n_cuts += 1
        self._passed, self.cut_after = 0, None
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self._sockets += [near, far]
            threading.Thread(target=self._serve, args=(near, far), daemon=True).start()

    def _serve(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._pass, args=(far, near, False), daemon=True)
        back.start()
        self._pass(near, far, True)
        back.join()
        near.close()
        far.close()

    def _pass(self, source: socket.socket, sink: socket.socket, towards_device: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
                if towards_device:
                    self._passed += len(data)
                    if self.cut_after is not None and self._passed >= self.cut_after:
                        self.cut()
                        break
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
