"""Connections: kept, shared out, replaced when they died, and never used again when anything about them is odd."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from asyncsdk.errors import AsyncSDKError, ConnectionFailed
from asyncsdk.transport.base import BytesBody, Request, Transport
from tests.contract.transport.conftest import MakeServer, MakeTransport
from tests.support.http_server import HttpServer, close, reply_then_close
from tests.support.wire.scripts import OK, Ending, end, polite, sized, then
from tests.support.wire.server import Script, Wire
from tests.support.wire.sinks import get, put

SMUGGLED = sized(b"smuggled")


async def test_one_connection_serves_requests_that_follow_each_other(store: HttpServer, transport: Transport) -> None:
    """Kept alive without being told to."""
    for _ in range(20):
        await put(transport, store.url("/a"), b"x")
    assert store.connections == 1


async def test_requests_at_the_same_time_use_as_many_connections(store: HttpServer, transport: Transport) -> None:
    """And the same ones the next time."""
    store.delay = 0.02
    for _ in range(3):
        await asyncio.gather(*(put(transport, store.url(f"/{i}"), b"x") for i in range(6)))
    assert store.connections == 6


async def test_idle_connections_are_limited(make: MakeTransport, store: HttpServer) -> None:
    """At most ``max_idle`` stay open while nobody uses them."""
    transport = make(max_idle=2)
    store.delay = 0.05
    await asyncio.gather(*(put(transport, store.url(f"/{i}"), b"x") for i in range(5)))
    async with asyncio.timeout(10):
        while store.open_connections > 2:
            await asyncio.sleep(0.01)
    await asyncio.gather(*(put(transport, store.url(f"/{i}"), b"x") for i in range(2)))
    assert store.connections == 5


async def test_closing_the_transport_closes_its_connections(make: MakeTransport, store: HttpServer) -> None:
    """All of them, at once."""
    transport = make()
    await asyncio.gather(*(put(transport, store.url(f"/{i}"), b"x") for i in range(3)))
    await transport.aclose()
    async with asyncio.timeout(10):
        while store.open_connections:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("value", ["close", "Close", "CLOSE", "keep-alive, close", "x ,\tcLoSe, y", "close, close"])
async def test_a_server_that_says_close_is_believed(transport: Transport, wire: MakeServer, value: str) -> None:
    """In any case and in any list, though it then keeps the connection open (RFC 9112 section 9.6)."""
    server = await wire(then(sized(b"a", f"Connection: {value}"), SMUGGLED), polite())
    assert (await get(transport, server.url("/"))).body == b"a"
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close"])
async def test_a_request_that_says_close_is_the_last_on_its_connection(
    transport: Transport, wire: MakeServer, value: str
) -> None:
    """Whatever the server makes of it (RFC 9112 section 9.6)."""
    server = await wire(then(OK, SMUGGLED), polite())
    await get(transport, server.url("/"), headers={"Connection": value})
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert server.connections == 2


async def test_close_in_a_second_connection_header_is_believed(transport: Transport, wire: MakeServer) -> None:
    """Repeated headers are one list."""
    server = await wire(then(sized(b"a", "Connection: keep-alive", "Connection: close"), SMUGGLED), polite())
    await get(transport, server.url("/"))
    assert (await get(transport, server.url("/"))).body == b"ok"


@pytest.mark.parametrize("value", ["keep-alive", "Keep-Alive", "closed", "x-close, y", "disclose", ""])
async def test_anything_else_keeps_the_connection(transport: Transport, wire: MakeServer, value: str) -> None:
    """HTTP/1.1 connections are kept unless somebody says ``close``."""
    server = await wire(then(sized(b"a", f"Connection: {value}"), sized(b"b")))
    assert [(await get(transport, server.url("/"))).body for _ in range(2)] == [b"a", b"b"]
    assert server.connections == 1


async def test_http_1_0_closes_unless_it_says_otherwise(transport: Transport, wire: MakeServer) -> None:
    """Such a connection is not used again."""
    first = b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na"
    server = await wire(then(first, SMUGGLED), polite())
    assert [(await get(transport, server.url("/"))).body for _ in range(2)] == [b"a", b"ok"]
    assert server.connections == 2


async def test_http_1_0_with_keep_alive_is_answered_either_way(transport: Transport, wire: MakeServer) -> None:
    """Such a connection may be used again (lean) or not (httpx); the next request is answered."""
    first = b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\na"
    server = await wire(then(first, OK), polite())
    assert [(await get(transport, server.url("/"))).body for _ in range(2)] == [b"a", b"ok"]


@pytest.mark.parametrize("pause", [0.0, 0.02])
@pytest.mark.parametrize(
    "first",
    [
        sized(b"first"),
        sized(b""),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
    ],
    ids=["length", "empty", "204", "304", "chunked"],
)
@pytest.mark.parametrize("extra", [SMUGGLED, b"\r\n", b"x", SMUGGLED[:10], b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_bytes_after_a_reply_answer_nobody(
    transport: Transport, wire: MakeServer, first: bytes, extra: bytes, pause: float
) -> None:
    """A second reply behind the first, in the same segment or the next, must never be that to the next request.

    The connection is never used again, not even for an empty line, which RFC 9112 section 2.2 tolerates in requests.
    """
    server = await wire(then(first + extra if not pause else first, SMUGGLED), polite())
    if pause:
        server = await wire(_late(first, extra, pause), polite())
    await get(transport, server.url("/"))
    await asyncio.sleep(3 * pause)
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
@pytest.mark.parametrize("extra", [SMUGGLED, b"\r\n"])
async def test_what_came_unnoticed_is_seen_before_a_connection_is_used_again(
    transport: Transport, wire: MakeServer, method: str, extra: bytes
) -> None:
    """While the event loop is busy nobody is told of it; it lies in the socket, and is there to be found."""
    may_say_more = asyncio.Event()

    async def script(connection: Wire) -> None:
        await connection.request()
        await connection.send(OK)
        await may_say_more.wait()
        await connection.send(extra)
        await connection.request()
        await connection.send(SMUGGLED)

    server = await wire(script, polite())
    await get(transport, server.url("/"))
    may_say_more.set()
    await asyncio.sleep(0)  # the server's turn, and ours again before the loop looks at any socket
    body = None if method == "GET" else BytesBody(b"x")
    reply = await transport.send(Request(method, server.url("/"), body=body))
    assert reply.body == b"ok"
    assert server.connections == 2


def _late(first: bytes, extra: bytes, pause: float) -> Script:
    async def script(connection: Wire) -> None:
        await connection.request()
        await connection.send(first, extra, pause=pause)
        await connection.request()
        await connection.send(SMUGGLED)

    return script


async def test_a_reply_before_the_request_answers_at_most_one(transport: Transport, wire: MakeServer) -> None:
    """A server that talks first cannot be told from a quick one; what it says next is never an answer.

    Decided: the early words may be taken for the reply to the first request or refused; with more behind them, the
    connection is not used again.
    """

    async def hasty(connection: Wire) -> None:
        await connection.send(SMUGGLED)
        await connection.request()
        await connection.send(SMUGGLED)
        await connection.rest()

    server = await wire(hasty, polite())
    with contextlib.suppress(AsyncSDKError):  # refused
        assert (await get(transport, server.url("/"))).body == b"smuggled"
    await asyncio.sleep(0.05)
    assert (await get(transport, server.url("/"))).body == b"ok"


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_kept_connection_that_died_is_replaced_for_free(
    transport: Transport, wire: MakeServer, size: int, ending: Ending
) -> None:
    """When it ends before a byte of the reply, the request is sent once more, and counted once."""

    async def dying(connection: Wire) -> None:
        await connection.request()
        await connection.send(OK)
        await connection.request()
        await end(connection, ending)

    server = await wire(dying, polite())
    await put(transport, server.url("/a"), b"x")
    sent: list[int] = []
    answer = await put(transport, server.url("/b"), b"y" * size, on_sent=sent.append)
    assert answer.status == 200
    assert [(seen.target, len(seen.body)) for seen in server.requests] == [("/a", 1), ("/b", size), ("/b", size)]
    assert sum(sent) == size


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_connection_closed_while_idle_is_replaced(
    transport: Transport, wire: MakeServer, ending: Ending
) -> None:
    """Noticed before or after the request goes out; the server sees the request once."""
    server = await wire(then(OK, ending=ending), polite())
    await put(transport, server.url("/a"), b"x")
    await asyncio.sleep(0.05)
    assert (await put(transport, server.url("/b"), b"y" * 100_000)).status == 200
    assert [seen.target for seen in server.requests] == ["/a", "/b"]


async def test_a_connection_closed_by_the_server_after_its_reply_is_not_used_again(
    store: HttpServer, transport: Transport
) -> None:
    """Although it could have been kept."""
    store.script("/a", reply_then_close())
    await put(transport, store.url("/a"), b"x")
    assert (await put(transport, store.url("/b"), b"x")).status == 200


async def test_a_kept_connection_is_replaced_only_once(transport: Transport, wire: MakeServer) -> None:
    """The second time it is an error."""
    first = await wire(_once_then_die())
    await get(transport, first.url("/"))
    with pytest.raises(ConnectionFailed):
        await get(transport, first.url("/"))
    assert len(first.requests) == 3


def _once_then_die() -> Script:
    async def script(connection: Wire) -> None:
        await connection.request()
        if connection.number == 1:
            await connection.send(OK)
            await connection.request()

    return script


async def test_a_kept_connection_that_dies_inside_the_reply_is_an_error(transport: Transport, wire: MakeServer) -> None:
    """The server has begun to answer: sending the request again is not the transport's to decide."""
    server = await wire(then(OK, sized(b"hello")[:-2], ending="close"), polite())
    await get(transport, server.url("/"))
    with pytest.raises(AsyncSDKError):
        await get(transport, server.url("/"))
    assert len(server.requests) == 2


@pytest.mark.parametrize("said", [b"H", OK[:20], b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["byte", "head", "100"])
async def test_a_kept_connection_that_dies_inside_the_head_is_an_error(
    kind: str, transport: Transport, wire: MakeServer, said: bytes
) -> None:
    """One byte of a reply, an informational one included, says that the server had the request.

    httpx cannot tell that from a connection that ended before, and sends the request once more.
    """
    server = await wire(then(OK, said, ending="close"), polite())
    await get(transport, server.url("/"))
    if kind == "httpx":
        assert (await get(transport, server.url("/"))).body == b"ok"
        return
    with pytest.raises(ConnectionFailed):
        await get(transport, server.url("/"))
    assert len(server.requests) == 2


async def test_a_fresh_connection_that_dies_is_an_error(store: HttpServer, transport: Transport) -> None:
    """Nothing says that the server did not act on the request."""
    store.script("/b", close())
    with pytest.raises(ConnectionFailed):
        await put(transport, store.url("/b?sig=SECRET"), b"y")
    assert len(store.requests) == 1


async def test_nobody_listening_is_a_failed_connection(transport: Transport) -> None:
    """In the words of the operating system."""
    async with HttpServer() as gone:
        url = gone.url("/x?sig=SECRET")
    with pytest.raises(ConnectionFailed, match="refused"):
        await put(transport, url, b"y")


async def test_connections_are_not_shared_between_origins(transport: Transport, wire: MakeServer) -> None:
    """Host, port and scheme are an origin; another name for the same address is another one."""
    server = await wire(polite())
    await get(transport, server.url("/"))
    await get(transport, server.url("/", host="localhost"))
    assert server.connections == 2
