"""The minimum rate: what moves too slowly fails, whichever way it goes; what only pauses does not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from asyncsdk.errors import RequestTimeout
from asyncsdk.transport.base import FileBody, Request, Timeouts, Transport
from tests.contract.transport.conftest import MakeServer
from tests.support.wire.certificates import Certificates
from tests.support.wire.scripts import OK, reply, sized
from tests.support.wire.server import Wire
from tests.support.wire.sinks import Collect, get, put

SECONDS = 0.4


def least(rate_bytes: int) -> Timeouts:
    """Timeouts of which only the rate can be missed here."""
    return Timeouts(connect=10.0, idle=10.0, reply=10.0, rate_seconds=SECONDS, rate_bytes=rate_bytes)


def trickled(size_bytes: int, piece: int) -> list[bytes]:
    """Return a reply of *size_bytes*, its head first, in pieces."""
    data = sized(os.urandom(size_bytes))
    head = data.index(b"\r\n\r\n") + 4
    return [data[:head], *(data[at : at + piece] for at in range(head, len(data), piece))]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_reply_that_comes_too_slowly_is_a_timeout(
    transport: Transport, wire: MakeServer, certificates: Certificates, trusted: Path, tls: bool
) -> None:
    """A byte now and then is not idle, but it is no rate; the connection is dropped, and the transport works on."""
    pieces = trickled(1000, 1)
    server = await wire(reply(*pieces, pause=0.02), reply(OK), tls=certificates.server() if tls else None)
    received: list[int] = []
    with pytest.raises(RequestTimeout, match="less moved than the minimum rate") as caught:
        await get(transport, server.url("/o?sig=SECRET"), timeouts=least(10_000), on_received=received.append)
    assert (caught.value.phase, caught.value.timeout_seconds) == ("rate", SECONDS)
    assert caught.value.retryable
    assert "SECRET" not in str(caught.value)
    assert 0 < sum(received) < 1000
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize("source", ["bytes", "file"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_body_that_leaves_too_slowly_is_a_timeout(
    transport: Transport,
    wire: MakeServer,
    certificates: Certificates,
    trusted: Path,
    tmp_path: Path,
    source: str,
    tls: bool,
) -> None:
    """The server goes on reading, but not enough of it."""

    async def slow(connection: Wire) -> None:
        seen = await connection.head()
        await connection.read_slowly(seen.length, step=1000, pause=0.02)

    server = await wire(slow, receive_buffer=64 * 1024, tls=certificates.server() if tls else None)
    size = 32_000_000
    (tmp_path / "file").write_bytes(bytes(size))
    sent: list[int] = []
    with (tmp_path / "file").open("rb") as file, pytest.raises(RequestTimeout) as caught:
        if source == "file":
            body = FileBody(file.fileno(), 0, size)
            await transport.send(
                Request("PUT", server.url("/"), body=body, on_sent=sent.append, timeouts=least(2_000_000))
            )
        else:
            await put(transport, server.url("/"), bytes(size), on_sent=sent.append, timeouts=least(2_000_000))
    assert caught.value.phase == "rate"
    assert sum(sent) < size


async def test_what_moves_fast_enough_is_left_alone(transport: Transport, wire: MakeServer) -> None:
    """For several windows, at several times the rate."""
    server = await wire(reply(*trickled(30_000, 1000), pause=0.05))
    answer = await get(transport, server.url("/"), timeouts=least(2_000))
    assert (answer.status, answer.size_bytes) == (200, 30_000)


async def test_a_body_that_leaves_fast_enough_is_left_alone(transport: Transport, wire: MakeServer) -> None:
    """For several windows, at several times the rate."""

    async def slow(connection: Wire) -> None:
        seen = await connection.head()
        seen.body = await connection.read_slowly(seen.length, step=100_000, pause=0.02)
        await connection.send(OK)

    server = await wire(slow, receive_buffer=64 * 1024)
    data = os.urandom(8_000_000)
    answer = await put(transport, server.url("/"), data, timeouts=least(200_000))
    assert (answer.body, server.requests[0].body == data) == (b"ok", True)


async def test_the_rate_is_an_average(transport: Transport, wire: MakeServer) -> None:
    """Bursts with silence between them, as long as each window has its share."""
    server = await wire(reply(*trickled(40_000, 5000), pause=0.2))
    assert (await get(transport, server.url("/"), timeouts=least(2_000))).size_bytes == 40_000


async def test_waiting_for_a_reply_is_no_rate(transport: Transport, wire: MakeServer) -> None:
    """Neither after a body nor without one."""

    async def thinking(connection: Wire) -> None:
        for _ in range(2):
            await connection.request()
            await asyncio.sleep(3 * SECONDS)
            await connection.send(OK)

    server = await wire(thinking)
    assert (await put(transport, server.url("/"), bytes(100_000), timeouts=least(1_000_000))).body == b"ok"
    assert (await get(transport, server.url("/"), timeouts=least(1_000_000))).body == b"ok"


async def test_without_a_rate_slowness_is_allowed(transport: Transport, wire: MakeServer) -> None:
    """When the rate is turned off."""
    server = await wire(reply(*trickled(40, 1), pause=0.03))
    assert (await get(transport, server.url("/"), timeouts=least(0))).size_bytes == 40


async def test_a_window_that_a_sink_needs_for_the_last_bytes_is_no_rate(transport: Transport, wire: MakeServer) -> None:
    """Everything has come: how long it takes to put away is not the server's doing."""
    server = await wire(reply(sized(bytes(200_000))))

    class Slow(Collect):
        def write(self, data: bytes | memoryview) -> None:
            super().write(data)
            if len(self.data) == 200_000:
                import time

                time.sleep(2 * SECONDS)

    sink = Slow()
    answer = await get(transport, server.url("/"), timeouts=least(10_000_000), on_head=lambda head: sink)
    assert (answer.size_bytes, len(sink.data)) == (200_000, 200_000)
