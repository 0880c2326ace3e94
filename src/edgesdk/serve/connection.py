"""One connection of a client: uvicorn's, with a limit for the time without a request, whatever the client sends."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["IdleLimitedProtocol"]


class IdleLimitedProtocol(H11Protocol):
    """Closes a connection on which no request was under way for `timeout_keep_alive` seconds.

    uvicorn itself does so only behind an answer, and any byte ends its wait: a client that never asks, or that sends
    the head of a request a byte at a time, would hold one of the server's connections for good.
    """

    _idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client has so long for its first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; only a whole head ends the wait."""
        super().data_received(data)
        if self._asked():
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """The client has so long for its next request, unless that is there already."""
        super().on_response_complete()
        if not self._asked():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to be closed."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _asked(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._stop_waiting()
        self._idle = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
