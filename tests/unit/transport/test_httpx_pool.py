"""The connections of the transport over httpx: who waits goes on in order, and nobody is woken for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from asyncsdk.errors import ConnectionFailed
from asyncsdk.transport.httpx_pool import Connection, HttpxPool
from asyncsdk.transport.tls import TlsConfig
from asyncsdk.transport.urls import split_url

HERE, THERE = (split_url(f"http://{name}.example/")[0] for name in ("here", "there"))


class Few:
    """Memory for so many connections; counts how often it was asked for."""

    is_squeezed = False

    def __init__(self, connections: int) -> None:
        self.left = connections
        self.asked = 0

    def begin(self, least_bytes: int, on_change: Callable[[], None]) -> None:
        """There are no changes."""

    def take(self, size_bytes: int, *, is_needed: bool = False) -> bool:
        """Take one, if one is left."""
        self.asked += 1
        if not self.left and not is_needed:
            return False
        self.left -= 1
        return True

    def give_back(self, size_bytes: int) -> None:
        """Give one back."""
        self.left += 1

    def end(self) -> None:
        """Nobody counts it."""


def pool_of(connections: int) -> tuple[HttpxPool, Few]:
    """Return a pool with memory for so many."""
    memory = Few(connections)
    pool = HttpxPool(TlsConfig(), 100)
    pool.draw_on(memory)
    return pool, memory


async def test_requests_get_their_connection_in_order_and_each_is_woken_about_once() -> None:
    """A hundred that wait for two connections: not all of them look again whenever one is given back."""
    pool, memory = pool_of(2)
    order: list[int] = []

    async def one(number: int) -> None:
        connection = await pool.take(HERE if number % 5 else THERE, None)
        order.append(number)
        await asyncio.sleep(0)
        await pool.give_back(connection)

    async with asyncio.timeout(30):
        await asyncio.gather(*(one(number) for number in range(100)))
    # Neighbours may change places: one of them has a connection closed that leads elsewhere.
    assert max(abs(number - place) for place, number in enumerate(order)) <= 10
    assert memory.asked < 500
    await pool.aclose()
    assert memory.left == 2


async def test_who_is_cancelled_leaves_its_turn_to_the_next() -> None:
    """Before it was woken, and in the moment in which it is."""
    pool, memory = pool_of(1)
    held = await pool.take(HERE, None)
    tasks = [asyncio.create_task(pool.take(HERE, None)) for _ in range(4)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    await pool.give_back(held)
    tasks[1].cancel()
    async with asyncio.timeout(30):
        for expected in tasks[2:]:
            await pool.give_back(await expected)
    assert tasks[0].cancelled()
    assert tasks[1].cancelled()
    await pool.aclose()
    assert memory.left == 1


async def test_closing_tells_all_who_wait() -> None:
    pool, memory = pool_of(1)
    held = await pool.take(HERE, None)
    tasks: list[asyncio.Task[Connection]] = [asyncio.create_task(pool.take(THERE, None)) for _ in range(3)]
    await asyncio.sleep(0)
    await pool.aclose()
    async with asyncio.timeout(30):
        for task in tasks:
            with pytest.raises(ConnectionFailed):
                await task
    await pool.give_back(held)
    assert memory.left == 1
