"""Replies that come while the body is still going out."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Literal

import pytest

from asyncsdk.errors import ConnectionFailed
from asyncsdk.transport.base import FileBody, Request, Transport
from tests.contract.transport.conftest import MakeServer
from tests.support.http_server import HttpServer
from tests.support.http_server import early as early_in_store
from tests.support.wire.certificates import Certificates
from tests.support.wire.scripts import OK, early, polite, sized
from tests.support.wire.server import Wire
from tests.support.wire.sinks import PATIENT, put

NO = sized(b"no", status="413 Content Too Large")
SIZE = 32_000_000


async def test_an_early_reply_is_returned_and_its_connection_dropped(store: HttpServer, transport: Transport) -> None:
    """The rest of the body stays here, and is not counted."""
    store.script("/o", early_in_store(403, b"no", after=10))
    size = 64_000_000
    sent: list[int] = []
    answer = await put(transport, store.url("/o"), bytes(size), on_sent=sent.append)
    assert sum(sent) < size
    assert (answer.status, answer.body) == (403, b"no")
    assert (await put(transport, store.url("/b"), b"x")).status == 200
    assert store.connections == 2


@pytest.mark.parametrize("body", ["bytes", "file"])
@pytest.mark.parametrize("what", ["close", "reset", "read_on"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_whatever_the_server_does_after_an_early_reply_it_is_the_reply(
    kind: str,
    transport: Transport,
    wire: MakeServer,
    certificates: Certificates,
    trusted: Path,
    tmp_path: Path,
    tls: bool,
    what: Literal["close", "reset", "read_on"],
    body: str,
) -> None:
    """It closes, resets, or reads the rest; the connection is not used again.

    Over TLS httpx looks for a reply only when the body is out: a server that closes then is a broken connection.
    """
    server = await wire(early(NO, after=1000, what=what), polite(), tls=certificates.server() if tls else None)
    sent: list[int] = []
    path = tmp_path / "body"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as file:
        data = bytes(SIZE) if body == "bytes" else b""
        request = Request("PUT", server.url("/o"), on_sent=sent.append, timeouts=PATIENT)
        request.body = FileBody(file.fileno(), 0, SIZE) if body == "file" else None
        try:
            answer = await (
                transport.send(request)
                if body == "file"
                else put(transport, server.url("/o"), data, on_sent=sent.append)
            )
        except ConnectionFailed:
            assert (kind, tls) == ("httpx", True)
            assert what != "read_on"
        else:
            assert (answer.status, answer.body) == (413, b"no")
    assert sum(sent) <= SIZE
    assert (await put(transport, server.url("/b"), b"x")).status == 200
    if what != "read_on":
        assert server.connections == 2


async def test_an_early_reply_without_length_is_read_to_its_end(transport: Transport, wire: MakeServer) -> None:
    """The connection ends it, and the server only half-closes."""

    async def script(connection: Wire) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 413 Too Large\r\n\r\n", b"no", b" no", pause=0.02)
        connection.half_close()
        await asyncio.sleep(1)

    server = await wire(script)
    answer = await put(transport, server.url("/o"), bytes(SIZE))
    assert (answer.status, answer.body) == (413, b"no no")


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 3,
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 1",
    ],
    ids=["100", "103", "split"],
)
async def test_informational_replies_do_not_stop_the_body(
    transport: Transport, wire: MakeServer, interim: bytes
) -> None:
    """A ``100 Continue`` that nobody waited for, hints, and half of one: the body goes on, whole."""

    async def script(connection: Wire) -> None:
        seen = await connection.head()
        await connection.send(interim)
        await asyncio.sleep(0.05)
        seen.body = await connection.reader.readexactly(seen.length)
        await connection.send(b"00 Continue\r\n\r\n" if interim.endswith(b"/1.1 1") else b"", OK)
        await connection.request()
        await connection.send(sized(b"second"))

    data = os.urandom(SIZE // 2)
    server = await wire(script)
    sent: list[int] = []
    answer = await put(transport, server.url("/o"), data, on_sent=sent.append)
    assert (answer.body, sum(sent)) == (b"ok", len(data))
    assert server.requests[0].body == data
    assert (await put(transport, server.url("/o"), b"x")).body == b"second"
    assert server.connections == 1


async def test_a_server_that_closes_early_without_a_reply_is_a_broken_connection(
    transport: Transport, wire: MakeServer
) -> None:
    """It does not go on sending into the void, nor send it again."""

    async def script(connection: Wire) -> None:
        await connection.head()
        connection.reset()

    server = await wire(script)
    with pytest.raises(ConnectionFailed):
        await put(transport, server.url("/o"), bytes(SIZE))
    assert server.connections == 1


async def test_an_early_reply_to_a_body_that_is_out_anyway_is_the_reply(transport: Transport, wire: MakeServer) -> None:
    """A small body is in the kernel before the server can refuse it; the connection may be kept."""

    async def script(connection: Wire) -> None:
        seen = await connection.head()
        await connection.send(NO)
        await connection.reader.readexactly(seen.length)
        await connection.rest()

    server = await wire(script, polite())
    assert (await put(transport, server.url("/o"), bytes(1000))).status == 413


@pytest.mark.parametrize("then_it", ["asks for the body", "says nothing", "refuses again"])
async def test_after_a_refusal_large_bodies_still_arrive(transport: Transport, wire: MakeServer, then_it: str) -> None:
    """A transport may ask first (``Expect: 100-continue``); the next one arrives whatever the server makes of that."""

    async def script(connection: Wire) -> None:
        seen = await connection.head()
        if connection.number == 1 or then_it == "refuses again":
            await connection.send(NO)
            await connection.rest()
            return
        if then_it == "asks for the body":
            await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        seen.body = await connection.reader.readexactly(seen.length)
        await connection.send(OK)
        await connection.rest()

    server = await wire(script)
    data = os.urandom(SIZE)
    assert (await put(transport, server.url("/o"), data)).status == 413
    sent: list[int] = []
    answer = await put(transport, server.url("/o"), data, on_sent=sent.append)
    if then_it == "refuses again":
        assert (answer.status, answer.body) == (413, b"no")
        assert sum(sent) <= SIZE
    else:
        assert (answer.body, sum(sent), server.requests[1].body == data) == (b"ok", SIZE, True)
    assert len(server.requests) == 2
