"""Silence is noticed in every phase; slowness is not silence."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from asyncsdk.errors import RequestTimeout
from asyncsdk.transport.base import Request, Timeouts, Transport
from tests.contract.transport.conftest import MakeServer, MakeTransport
from tests.support.http_server import HttpServer, stall
from tests.support.wire.scripts import OK, polite, reply, sized
from tests.support.wire.server import Wire
from tests.support.wire.sinks import QUICK, Collect, get, put

LAZY = Timeouts(connect=5.0, idle=0.6, reply=0.6)
"""Silence of more than this is idle; the pauses below are a tenth of it."""


async def test_silence_instead_of_a_reply_is_a_timeout_of_it(store: HttpServer, transport: Transport) -> None:
    """The connection is dropped, and the transport works on."""
    store.script("/o", stall())
    with pytest.raises(RequestTimeout) as caught:
        await get(transport, store.url("/o"), timeouts=QUICK)
    assert (caught.value.phase, caught.value.timeout_seconds) == ("reply", QUICK.reply)
    assert caught.value.retryable
    assert (await put(transport, store.url("/b"), b"x")).status == 200
    assert store.connections == 2


async def test_a_server_that_reads_no_more_is_a_timeout_of_sending(store: HttpServer, transport: Transport) -> None:
    """The body stands still."""

    async def never_read(connection: object, request: object) -> bool:
        await asyncio.Event().wait()
        return True

    store.script("/o", never_read)
    with pytest.raises(RequestTimeout) as caught:
        await put(transport, store.url("/o"), bytes(64_000_000), timeouts=QUICK)
    assert caught.value.phase == "send"


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
    ids=["length", "no body", "chunked", "close", "head", "interim"],
)
async def test_a_reply_that_stands_still_is_a_timeout(transport: Transport, wire: MakeServer, start: bytes) -> None:
    """Wherever it stopped, a body without length included: silence is no end."""
    server = await wire(reply(start, ending="keep"))
    with pytest.raises(RequestTimeout) as caught:
        await get(transport, server.url("/"), timeouts=QUICK)
    assert caught.value.phase == "reply"


async def test_the_time_to_the_reply_may_be_longer_than_the_idle_time(transport: Transport, wire: MakeServer) -> None:
    """A server may think for longer than it may pause."""

    async def thinking(connection: Wire) -> None:
        await connection.request()
        await asyncio.sleep(0.8)
        await connection.send(OK)

    server = await wire(thinking)
    answer = await put(transport, server.url("/"), b"x", timeouts=Timeouts(connect=5.0, idle=0.2, reply=10.0))
    assert answer.body == b"ok"


async def test_a_trickled_reply_is_slow_but_not_idle(transport: Transport, wire: MakeServer) -> None:
    """Twenty pauses, together longer than every timeout, in head and body."""
    data = sized(b"hello, slow world")
    step = -(-len(data) // 20)
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    server = await wire(reply(*pieces, pause=0.06))
    assert (await get(transport, server.url("/"), timeouts=LAZY)).body == b"hello, slow world"


async def test_a_body_that_is_read_slowly_is_not_idle(transport: Transport, wire: MakeServer) -> None:
    """The server takes longer over it than every timeout, but never stands still."""
    size = 12_000_000

    async def slow(connection: Wire) -> None:
        seen = await connection.head()
        seen.body = await connection.read_slowly(seen.length, step=100_000, pause=0.01)
        await connection.send(OK)

    server = await wire(slow, receive_buffer=64 * 1024)
    data = os.urandom(size)
    answer = await put(transport, server.url("/"), data, timeouts=Timeouts(connect=5.0, idle=0.6, reply=20.0))
    assert (answer.body, server.requests[0].body == data) == (b"ok", True)


async def test_a_slow_sink_is_not_the_servers_silence(transport: Transport, wire: MakeServer) -> None:
    """Time spent in a sink is no idle time."""
    server = await wire(reply(sized(bytes(1_000_000))))

    class Slow(Collect):
        def write(self, data: bytes | memoryview) -> None:
            if not self.data:
                import time

                time.sleep(0.5)
            super().write(data)

    sink = Slow()
    answer = await get(transport, server.url("/"), timeouts=QUICK, on_head=lambda head: sink)
    assert (answer.size_bytes, len(sink.data)) == (1_000_000, 1_000_000)


async def test_a_connection_that_cannot_be_made_in_time_is_a_timeout(make: MakeTransport) -> None:
    """A listener whose queue is full answers no handshake."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        try:
            for _ in range(8):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(listener.getsockname())
            await asyncio.sleep(0.05)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            with pytest.raises(RequestTimeout) as caught:
                await make().send(Request("GET", url, timeouts=Timeouts(connect=0.3, idle=5, reply=5)))
            assert (caught.value.phase, caught.value.timeout_seconds) == ("connect", 0.3)
        finally:
            for sock in waiting:
                sock.close()


async def test_a_handshake_that_stands_still_is_a_timeout_of_connecting(make: MakeTransport) -> None:
    """A server that speaks no TLS and says nothing."""
    held = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        with pytest.raises(RequestTimeout) as caught:
            await make().send(Request("GET", url, timeouts=Timeouts(connect=0.3, idle=5, reply=5)))
        assert caught.value.phase == "connect"
    finally:
        for writer in held:
            writer.transport.abort()
        server.close()
        await server.wait_closed()


async def test_timeouts_of_the_transport_hold_for_requests_that_bring_none(
    make: MakeTransport, wire: MakeServer
) -> None:
    """And those of a request only for it."""
    server = await wire(reply(b"", ending="keep"), polite())
    transport = make(timeouts=QUICK)
    with pytest.raises(RequestTimeout):
        await transport.send(Request("GET", server.url("/")))
    assert (await transport.send(Request("GET", server.url("/")))).body == b"ok"
