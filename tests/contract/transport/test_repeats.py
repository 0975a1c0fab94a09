"""What must not be done twice is not sent twice; what cannot be framed is not sent at all."""

from __future__ import annotations

import array
import asyncio

import pytest

from asyncsdk.errors import ConfigError, ConnectionFailed
from asyncsdk.transport.base import BytesBody, Request, Transport
from tests.contract.transport.conftest import MakeServer
from tests.support.wire.scripts import OK, Ending, end, polite, then
from tests.support.wire.server import Wire
from tests.support.wire.sinks import PATIENT, get


async def send(transport: Transport, method: str, url: str, data: bytes | memoryview = b"x") -> bytes:
    """Send *data* and return the body of the reply."""
    return (await transport.send(Request(method, url, body=BytesBody(data), timeouts=PATIENT))).body


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("size", [1, 1_000_000])
async def test_what_is_not_idempotent_is_not_sent_twice(
    transport: Transport, wire: MakeServer, method: str, ending: Ending, size: int
) -> None:
    """A kept connection that dies after the request: the server may have done it (RFC 9110 section 9.2.2)."""

    async def dying(connection: Wire) -> None:
        await connection.request()
        await connection.send(OK)
        await connection.request()
        await end(connection, ending)

    server = await wire(dying, polite())
    await get(transport, server.url("/a"))
    with pytest.raises(ConnectionFailed):
        await send(transport, method, server.url("/b"), bytes(size))
    assert [seen.target for seen in server.requests] == ["/a", "/b"]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_dead_connection_is_noticed_before_it_is_used(
    transport: Transport, wire: MakeServer, method: str, ending: Ending
) -> None:
    """In the very turn in which its end arrived: such a request goes out once, over a connection that lives."""
    ended = asyncio.Event()

    async def dying(connection: Wire) -> None:
        await connection.request()
        await connection.send(OK)
        await end(connection, ending)
        ended.set()

    server = await wire(dying, polite())
    await get(transport, server.url("/a"))
    await ended.wait()
    assert await send(transport, method, server.url("/b")) == b"ok"
    assert [seen.target for seen in server.requests] == ["/a", "/b"]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_live_connection_is_used_for_any_method(transport: Transport, wire: MakeServer, method: str) -> None:
    """Looking at it first makes nobody drop it."""
    server = await wire(polite())
    for _ in range(3):
        await send(transport, method, server.url("/"))
    assert server.connections == 1


@pytest.mark.parametrize("count", [0, 3, 50_000])
async def test_a_view_of_numbers_is_sent_by_its_bytes(transport: Transport, wire: MakeServer, count: int) -> None:
    """The length that is declared is the length that is sent, whatever the items of the view are."""
    server = await wire(then(OK, OK))
    numbers = array.array("i", range(count))
    assert await send(transport, "PUT", server.url("/a"), memoryview(numbers)) == b"ok"
    assert await send(transport, "PUT", server.url("/b"), b"second") == b"ok"
    assert [seen.body for seen in server.requests] == [numbers.tobytes(), b"second"]


def test_a_view_with_gaps_is_refused() -> None:
    """No system call takes one."""
    with pytest.raises(ConfigError, match="gaps"):
        BytesBody(memoryview(b"abcdef")[::2])
