"""Bodies in pieces, and what a minimum rate asks of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from asyncsdk.transport.base import BytesBody, FileBody, Request, Timeouts
from asyncsdk.transport.outgoing import Outgoing
from asyncsdk.transport.rates import LeastRate
from asyncsdk.transport.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    running = Threads(1)
    yield running
    running.close()


@pytest.mark.parametrize("size", [10_000, 60_000, 1_000_000])
@pytest.mark.parametrize("kind", ["bytes", "file"])
async def test_pieces_are_small_enough_to_see_the_rate(tmp_path: Path, threads: Threads, kind: str, size: int) -> None:
    """An eighth of a window at most is on its way uncounted, or 64 KiB where a whole window asks for less.

    Without a rate pieces are as large as they may be.
    """
    (tmp_path / "file").write_bytes(bytes(size))
    with (tmp_path / "file").open("rb") as file:
        body = BytesBody(bytes(size)) if kind == "bytes" else FileBody(file.fileno(), 0, size)
        for rate_bytes, largest in ((80_000, 20_000), (1, 65_536), (0, min(size, 1024 * 1024))):
            rate = LeastRate(Timeouts(rate_seconds=2.0, rate_bytes=rate_bytes))
            with rate:
                outgoing = Outgoing(Request("PUT", "http://example.com/", body=body), lambda: False, threads, rate)
                sizes = [len(piece) async for piece in outgoing]
            assert sum(sizes) == size
            assert max(sizes) <= largest
            assert rate_bytes or len(sizes) <= 4


async def test_a_block_that_is_too_slow_is_left_and_no_other() -> None:
    """Windows follow each other; neither before, between nor after bodies is anything ended."""
    is_last = False
    with LeastRate(Timeouts(rate_seconds=0.2, rate_bytes=1000)) as rate:
        await asyncio.sleep(0.3)
        rate.begin()
        for _ in range(60):
            rate.moved(200)
            await asyncio.sleep(0.01)
        rate.pause()
        await asyncio.sleep(0.3)
        rate.begin()
        rate.moved(199)
        is_last = True
        await anyio.sleep_forever()
    assert is_last
    await asyncio.sleep(0.3)  # what ended it ends nothing behind it


async def test_a_large_piece_on_its_way_excuses(threads: Threads) -> None:
    """It may have moved more than a window asks for, and nobody has seen it; once it has left, what moved counts."""
    is_last = False
    with LeastRate(Timeouts(rate_seconds=0.05, rate_bytes=100)) as rate:
        outgoing = Outgoing(Request("PUT", "http://h/", body=BytesBody(bytes(200_000))), lambda: False, threads, rate)
        for _ in range(4):
            await anext(outgoing)
            await asyncio.sleep(0.2)
        rate.moved(1)
        is_last = True
        await anyio.sleep_forever()
    assert is_last


async def test_a_cancellation_from_outside_is_one() -> None:
    """It is not mistaken for slowness."""

    async def body() -> None:
        with LeastRate(Timeouts(rate_seconds=60.0, rate_bytes=1)) as rate:
            rate.begin()
            await anyio.sleep_forever()

    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
