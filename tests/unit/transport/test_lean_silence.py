"""Connections whose way was cut without a word: noticed by the system where it can, and told to those beside them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from asyncsdk.errors import RequestTimeout
from asyncsdk.transport.base import Request, Timeouts
from asyncsdk.transport.lean import LeanTransport
from tests.support.faults.swallowing import SwallowingRelay
from tests.support.http_server import HttpServer

IMPATIENT = Timeouts(connect=5.0, idle=5.0, reply=0.3)


@pytest.fixture
async def relay() -> AsyncIterator[SwallowingRelay]:
    """A way to a server that has one object."""
    async with HttpServer() as server:
        server.objects["/o"] = b"abc"
        server.delay = 0.02
        async with SwallowingRelay(server.port) as running:
            yield running


@pytest.fixture
async def transport() -> AsyncIterator[LeanTransport]:
    running = LeanTransport(timeouts=IMPATIENT)
    yield running
    await running.aclose()


async def get(transport: LeanTransport, relay: SwallowingRelay, method: str = "GET") -> bytes:
    return (await transport.send(Request(method, f"http://127.0.0.1:{relay.port}/o"))).body


async def test_one_silent_connection_tells_of_those_that_were_idle_with_it(
    transport: LeanTransport, relay: SwallowingRelay
) -> None:
    """Three are kept and cut off: one costs a timeout, the others are not tried any more."""
    assert await asyncio.gather(*(get(transport, relay) for _ in range(3))) == [b"abc"] * 3
    assert len(transport.pool.connections) == 3
    relay.cut()
    with pytest.raises(RequestTimeout):
        await get(transport, relay)
    assert len(transport.pool.connections) == 0
    for _ in range(3):
        assert await get(transport, relay) == b"abc"
    assert relay.swallowed > 0
    assert relay.connections == 4


async def test_those_that_were_used_since_are_kept(transport: LeanTransport, relay: SwallowingRelay) -> None:
    """A server that is slow once is no reason to connect anew: what has just worked goes on working."""
    await asyncio.gather(*(get(transport, relay) for _ in range(2)))
    relay.cut()
    late = asyncio.create_task(get(transport, relay))
    await asyncio.sleep(0.05)
    transport.pool.drop_idle(next(iter(transport.pool._idle)), float("inf"))
    assert await get(transport, relay) == b"abc"  # on a fresh one
    with pytest.raises(RequestTimeout):
        await late
    assert len(transport.pool.connections) == 1
    assert await get(transport, relay) == b"abc"
    assert relay.connections == 3


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system cannot be asked to notice silence")
async def test_the_system_is_told_how_long_silence_may_last(transport: LeanTransport, relay: SwallowingRelay) -> None:
    """Somewhat longer than nothing may move: our own clock tells first. Signs of life are asked for meanwhile."""
    await get(transport, relay)
    (connection,) = transport.pool.connections
    sock = connection.link.sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7250
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    idle, pause, count = (
        sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}")) for name in ("IDLE", "INTVL", "CNT")
    )
    assert idle + pause * count <= 2 * 7.25


async def test_a_connection_that_the_system_found_dead_is_replaced(
    transport: LeanTransport, relay: SwallowingRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel says of a kept connection costs no attempt, and ends those that were idle beside it."""
    await asyncio.gather(*(get(transport, relay) for _ in range(3)))
    relay.cut()
    task = asyncio.create_task(get(transport, relay))
    await asyncio.sleep(0.05)
    (busy,) = [one for one in transport.pool.connections if one.exchange is not None]
    busy.broken(TimeoutError(110, "Connection timed out"))
    assert await task == b"abc"
    assert relay.connections == 4
    assert len(transport.pool.connections) == 1
