"""Connections that keep the server waiting for a request."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncsdk.server.http import server as http_server
from tests.support.server import RunningServer

PATIENCE_SECONDS = 0.3
REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    """A server that waits for a head no longer than `PATIENCE_SECONDS`."""
    monkeypatch.setattr(http_server, "KEEP_ALIVE_SECONDS", PATIENCE_SECONDS)
    with RunningServer(tmp_path) as running:
        yield running


def connect(server: RunningServer) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.settimeout(20)
    return connection


def answer(connection: socket.socket) -> bytes:
    """Return the head and body of one small reply."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        assert received, data
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return data


@pytest.mark.parametrize("start", [b"", b"G", REQUEST[:-2]], ids=["nothing", "one byte", "half a head"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_connection_without_a_whole_head_is_closed(impatient: RunningServer, start: bytes, is_first: bool) -> None:
    with connect(impatient) as connection:
        if not is_first:
            connection.sendall(REQUEST)
            assert answer(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(start)
        assert connection.recv(65536) == b""


def test_bytes_that_trickle_in_do_not_keep_a_connection_open(impatient: RunningServer) -> None:
    """A head of single bytes, each sooner than the limit, would otherwise take a connection for hours."""
    with connect(impatient) as connection:
        connection.sendall(b"GET /health?")
        for _ in range(200):
            try:
                connection.sendall(b"x")
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(PATIENCE_SECONDS / 10)
        else:
            pytest.fail("the connection stayed open")


def test_a_request_whose_body_takes_longer_is_answered(impatient: RunningServer) -> None:
    """Once the head is whole, the clock stands still; after the reply the connection serves the next request."""
    content = b'{"name": "slow"}'
    head = (
        f"POST /v1/projects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {impatient.token}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    with connect(impatient) as connection:
        connection.sendall(head.encode() + content[:1])
        time.sleep(PATIENCE_SECONDS * 3)
        connection.sendall(content[1:])
        assert answer(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(REQUEST + REQUEST)
        assert answer(connection).startswith(b"HTTP/1.1 200")
