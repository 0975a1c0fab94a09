"""How many transfers a run takes from its feed: about what may begin soon, small and large ones apart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from asyncsdk.engine import Engine, PutTarget, TransferConfig, Upload
from asyncsdk.engine.config import MiB
from asyncsdk.engine.pace import MIN_WANT, Pace
from asyncsdk.engine.room import Room, Waiting
from tests.support.feeds import RecordingFeed, multipart_target
from tests.support.http_server import Connection, HttpServer, Received
from tests.unit.engine.conftest import config

SMALL = Upload(b"x", PutTarget("http://host/a"))


def large(server: HttpServer, path: Path, number: int) -> Upload:
    return Upload(path, multipart_target(server, 2, upload_id=f"U{number}"))


async def test_of_large_objects_few_more_are_begun_than_may_be_under_way(server: HttpServer, tmp_path: Path) -> None:
    """Of 2,000 that may be pending, the first batch is taken; then two for each that may be under way, no more."""
    held = asyncio.Event()

    async def hold(connection: Connection, request: Received) -> bool:
        await held.wait()
        return False

    server.script("/m", *[hold] * 1000)
    (tmp_path / "large").write_bytes(bytes(2 * MiB))
    count = 200
    feed = RecordingFeed([large(server, tmp_path / "large", number) for number in range(count)])
    async with Engine(config(large_objects=2)) as engine:
        run = asyncio.create_task(engine.collect(feed))
        async with asyncio.timeout(50):
            while not server.active:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            assert feed.taken == MIN_WANT
            held.set()
            report = await run
    assert (report.done, report.failed) == (count, 0)
    wants = feed.wants[1:]
    assert max(wants) <= 4
    assert len(wants) > 30


async def test_large_objects_keep_no_small_ones_waiting(server: HttpServer, tmp_path: Path) -> None:
    """A feed of both: as many small ones as ever are there while there is room for large ones."""
    waiting = Waiting(0, 0, 0)
    room = Room(TransferConfig(large_objects=4), Pace(), lambda: waiting)
    assert await room.wait(lambda: 0) == MIN_WANT
    one = large(server, tmp_path, 1)
    room.took([SMALL] * 60 + [one] * 4)
    assert await room.wait(lambda: 0) == MIN_WANT
    room.took([one] * 64)
    assert await room.wait(lambda: 0) == 8
    room.took([SMALL] * 32 + [one] * 32)
    assert await room.wait(lambda: 0) == 16


@pytest.mark.parametrize(
    "waiting", [Waiting(MIN_WANT // 2 + 1, 0, 0), Waiting(0, 5, 0), Waiting(0, 0, 64)], ids=["small", "large", "parked"]
)
async def test_nothing_is_taken_while_enough_waits(waiting: Waiting) -> None:
    now = waiting
    room = Room(TransferConfig(large_objects=4), Pace(), lambda: now)
    task = asyncio.create_task(room.wait(lambda: 0))
    await asyncio.sleep(0.01)
    room.look()
    await asyncio.sleep(0.01)
    assert not task.done()
    now = Waiting(1, 1, 1)
    room.look()
    assert await task == MIN_WANT


async def test_no_more_is_taken_than_may_be_pending() -> None:
    room = Room(TransferConfig(max_pending=100), Pace(), lambda: Waiting(0, 0, 0))
    assert await room.wait(lambda: 60) == 40
    task = asyncio.create_task(room.wait(lambda: 80))
    await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
