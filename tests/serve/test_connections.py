"""Connections without a request: closed after their time, whatever dribbles in; those at work are left alone."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from device_artifacts import write_tiny
from served import Served

IDLE_S = 1
GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("connections") / "tiny.edge", max_context=4096)
    with Served(path, "--connection-idle", IDLE_S, "--context", 4096) as server:
        yield server


def connect(server) -> socket.socket:
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=10 * IDLE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask(connection: socket.socket) -> None:
    connection.sendall(GET)
    received = b""
    while not received.endswith(b"}"):
        data = connection.recv(1 << 16)
        assert data
        received += data
    assert received.startswith(b"HTTP/1.1 200")


def closed_after(connection: socket.socket) -> float:
    """Seconds until the server closes it; what it sends before is dropped."""
    begin = time.monotonic()
    with suppress(ConnectionResetError):
        while connection.recv(1 << 16):
            pass
    return time.monotonic() - begin


def test_a_client_that_never_asks(server):
    with connect(server) as connection:
        assert IDLE_S * 0.9 < closed_after(connection) < IDLE_S * 3


@pytest.mark.parametrize("n_before", [0, 1])
def test_a_head_that_does_not_end(server, n_before):
    """Bytes come all the time, and make no request."""
    with connect(server) as connection:
        for _ in range(n_before):
            ask(connection)
        connection.sendall(b"GET /health HTTP/1.1\r\nx: ")
        begin, refused = time.monotonic(), False
        while not refused and time.monotonic() - begin < 5 * IDLE_S:
            time.sleep(IDLE_S / 10)
            try:
                connection.sendall(b"a")
            except (BrokenPipeError, ConnectionResetError):
                refused = True
        assert refused
        assert time.monotonic() - begin > IDLE_S * 0.9


def test_a_connection_is_kept_between_requests(server):
    with connect(server) as connection:
        for _ in range(4):
            ask(connection)
            time.sleep(IDLE_S / 2)
        assert closed_after(connection) < IDLE_S * 3


def test_two_requests_at_once(server):
    with connect(server) as connection:
        connection.sendall(GET * 2)
        received = b""
        with suppress(ConnectionResetError):
            while data := connection.recv(1 << 16):
                received += data
        assert received.count(b"HTTP/1.1 200") == 2


def test_a_long_answer_is_not_idle(server):
    body = b'{"model": "tiny", "prompt": "Hi", "max_tokens": 4000, "temperature": 0, "stream": true}'
    head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with connect(server) as connection:
        connection.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode())
        time.sleep(IDLE_S * 1.5)  # a request is under way: its own time limit holds
        connection.sendall(body)
        received = b""
        while b"data: [DONE]" not in received:
            data = connection.recv(1 << 16)
            assert data
            received += data
