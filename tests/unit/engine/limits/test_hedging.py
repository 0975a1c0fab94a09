"""Parts that are late are asked for once more, within bounds; and nothing shows of it but the time."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsdk.engine import Download, Engine, Progress, PutTarget, UrlOrigin
from asyncsdk.engine.attempts import Airtime
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB
from asyncsdk.engine.health import Health
from asyncsdk.engine.lanes import Slots
from asyncsdk.engine.limits.hedging import Claim, Hedging
from asyncsdk.errors import ServerError
from tests.support.feeds import multipart_target
from tests.support.http_server import Connection, HttpServer, Received
from tests.unit.engine.conftest import config

SIZE = 24 * MiB


class LateRange:
    """A server whose answers to one range never come, for the first *count* times; it may begin them."""

    def __init__(self, server: HttpServer, path: str, start: int, count: int = 1, send: int = 0) -> None:
        self.start, self.left, self.send = start, count, send
        self.asked = self.dropped = 0
        server.script(path, *[self.answer] * 200)

    async def answer(self, connection: Connection, request: Received) -> bool:
        if not (request.header("range") or "").startswith(f"bytes={self.start}-"):
            return False
        self.asked += 1
        if not self.left:
            return False
        self.left -= 1
        data = connection.server.objects[request.path]
        wrong = bytes(self.send)  # what the loser left behind must not survive
        stop = self.start + MiB
        await connection.reply(
            206, wrong, {"Content-Range": f"bytes {self.start}-{stop - 1}/{len(data)}"}, declared=MiB
        )
        assert await connection.reader.read(1) == b""  # until the client drops it
        self.dropped += 1
        raise ConnectionResetError


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer() as running:
        running.objects["/o"] = os.urandom(SIZE)
        yield running


@pytest.mark.parametrize("sink", ["file", "memory", "stream"])
async def test_a_range_that_never_comes_is_fetched_by_a_second_request(
    server: HttpServer, tmp_path: Path, sink: str
) -> None:
    """The bytes are right though the first answer had begun with wrong ones, and each is counted once."""
    late = LateRange(server, "/o", 20 * MiB, send=1000)
    counts: list[Progress] = []
    async with Engine(config()) as engine:
        origin = UrlOrigin(server.url("/o"), size_bytes=SIZE)
        if sink == "stream":
            async with asyncio.timeout(30), engine.stream(origin) as pieces:
                data = b"".join([piece async for piece in pieces])
        else:
            path = tmp_path / "o" if sink == "file" else None
            async with asyncio.timeout(30):
                outcomes = engine.run([Download(origin, path)], on_progress=counts.append)
                async with outcomes:
                    (outcome,) = [outcome async for outcome in outcomes]
            assert counts[-1].bytes_done == SIZE
            data = path.read_bytes() if path is not None else outcome.data or b""
        hedging = engine.limits.hedging
        assert (hedging.repeated, hedging.won, hedging.extra_bytes) == (1, 1, MiB)
    assert data == server.objects["/o"]
    assert late.asked == 2
    assert process_budget().leased_bytes == 0
    assert not [path for path in tmp_path.iterdir() if path.name != "o"]


async def test_repetitions_are_bounded(server: HttpServer, tmp_path: Path) -> None:
    """With 24 parts one may be repeated; the second late one is left to its timeout, or to the caller."""
    LateRange(server, "/o", 20 * MiB)
    server.objects["/p"] = os.urandom(SIZE)
    LateRange(server, "/p", 20 * MiB)
    async with Engine(config()) as engine:
        hedging = engine.limits.hedging
        tasks = [
            asyncio.create_task(engine.download(UrlOrigin(server.url(path), size_bytes=SIZE), tmp_path / path[1:]))
            for path in ("/o", "/p")
        ]
        async with asyncio.timeout(30):
            while hedging.repeated < 2:
                await asyncio.sleep(0.02)
        assert hedging.extra_bytes <= 0.05 * 2 * SIZE
        await asyncio.wait(tasks, timeout=10)
        assert all(task.done() for task in tasks)
        assert hedging.repeated == 2


async def test_without_hedging_nothing_is_repeated(server: HttpServer, tmp_path: Path) -> None:
    late = LateRange(server, "/o", 20 * MiB)
    async with Engine(config(hedge=False)) as engine:
        task = asyncio.create_task(engine.download(UrlOrigin(server.url("/o"), size_bytes=SIZE), tmp_path / "o"))
        async with asyncio.timeout(30):
            while not late.asked:
                await asyncio.sleep(0.02)
        done, _ = await asyncio.wait([task], timeout=1)
        assert not done
        assert late.asked == 1
        task.cancel()
        await asyncio.wait([task])
    assert list(tmp_path.iterdir()) == []


async def test_a_repetition_that_fails_changes_nothing(server: HttpServer, tmp_path: Path) -> None:
    """Its error is nobody's; the first request goes on, and its answer comes in the end."""
    go_on = asyncio.Event()

    async def answer(connection: Connection, request: Received) -> bool:
        if not (request.header("range") or "").startswith(f"bytes={20 * MiB}-"):
            return False
        if go_on.is_set():
            return False
        if not waited:
            waited.append(request)
            await go_on.wait()
            return False
        go_on.set()
        await connection.reply(500, b"")
        return True

    waited: list[Received] = []
    server.script("/o", *[answer] * 60)
    async with Engine(config()) as engine, asyncio.timeout(30):
        outcome = await engine.download(UrlOrigin(server.url("/o"), size_bytes=SIZE), tmp_path / "o")
        assert outcome.ok
        assert (engine.limits.hedging.repeated, engine.limits.hedging.won) == (1, 0)
    assert (tmp_path / "o").read_bytes() == server.objects["/o"]


async def test_a_part_of_an_upload_that_is_late_is_sent_once_more(server: HttpServer) -> None:
    """The server has each part whole, and the loser is dropped."""
    late: list[Received] = []

    async def answer(connection: Connection, request: Received) -> bool:
        if request.query.get("partNumber") != "22" or late:
            return False
        late.append(request)
        await connection.read_body(request)
        await connection.reader.read(1)
        raise ConnectionResetError

    server.script("/m", *[answer] * 60)
    data = os.urandom(SIZE)
    counts: list[Progress] = []
    async with Engine(config()) as engine, asyncio.timeout(30):
        from asyncsdk.engine import Upload

        target = multipart_target(server, 24)
        target = replace(target, list_urls=(target.complete_url,))  # else nothing is sent twice
        report = await engine.collect([Upload(data, target)], on_progress=counts.append)
        assert report.done == 1
        assert engine.limits.hedging.won == 1
    assert server.objects["/m"] == data
    assert counts[-1].bytes_done == SIZE


async def test_the_error_of_the_first_request_is_the_one_that_is_told(server: HttpServer, tmp_path: Path) -> None:
    """A part that is late and then refused for good fails the object, repeated or not."""

    async def answer(connection: Connection, request: Received) -> bool:
        if not (request.header("range") or "").startswith(f"bytes={20 * MiB}-"):
            return False
        await asyncio.sleep(0.5)
        await connection.reply(500, b"")
        return True

    server.script("/o", *[answer] * 100)
    async with Engine(config()) as engine, asyncio.timeout(30):
        with pytest.raises(ServerError):
            await engine.download(UrlOrigin(server.url("/o"), size_bytes=SIZE), tmp_path / "o")
    assert list(tmp_path.iterdir()) == []


async def test_waiting_for_a_slot_is_not_lateness(tmp_path: Path) -> None:
    """128 parts of 0.04 s on eight slots: late is what takes far longer than that, not than the queue was long."""
    async with HttpServer() as server, Engine(config(concurrency=8, part_size=MiB)) as engine:
        server.delay = 0.04
        data = bytes(128 * 1024)
        target = multipart_target(server, 128, part_size=1024)
        outcome = await engine.upload(data, replace(target, list_urls=(target.complete_url,)))
        late = engine.limits.hedging.late_seconds("up", 1024)
        assert late is not None
        # Each takes a sixteenth of it all; what the queue would have taught is nearly twice all of it.
        assert late < outcome.seconds
        assert engine.limits.hedging.late_seconds("down", 1024) is None


def test_directions_and_sizes_are_learnt_apart() -> None:
    """What parts of 64 MiB take says nothing of those of 1 MiB, nor uploads of downloads.

    Of a size that nothing is known of, the last part of an object, the next larger one says enough.
    """
    hedging = Hedging(Slots(4), Health())
    for _ in range(20):
        hedging.learn("up", 64 * MiB, 30.0)
        hedging.learn("up", MiB, 1.0)
        hedging.learn("down", MiB, 0.5)
    assert hedging.late_seconds("up", 64 * MiB) == 60.0
    assert hedging.late_seconds("up", MiB) == 2.0
    assert hedging.late_seconds("up", 2 * MiB - 1) == 2.0
    assert hedging.late_seconds("up", 100) == 2.0
    assert hedging.late_seconds("up", 5 * MiB) == 60.0
    assert hedging.late_seconds("down", MiB) == 1.0
    assert hedging.late_seconds("down", 3 * MiB) is None


async def test_pauses_between_attempts_are_not_lateness() -> None:
    """A part that is tried again counts from its latest slot; while it has none, it is neither late nor repeated."""
    hedging = _knowing(Slots(4))
    repeated = 0

    async def first(airtime: Airtime) -> str:
        airtime.begin()
        await asyncio.sleep(0)
        airtime.pause()
        await asyncio.sleep(0.6)  # three times what is late
        airtime.begin()
        return "first"

    async def repeat(claim: Claim) -> str:
        nonlocal repeated
        repeated += 1
        return "again"

    assert await hedging.run("up", 1, first, repeat) == "first"
    assert repeated == 0
    assert hedging.late_seconds("up", 1) == 0.2


def _knowing(slots: Slots) -> Hedging:
    """Return who knows that such parts are late after 0.2 s, and may repeat as many as there are slots."""
    health = Health()
    health.part_bytes = 10**9
    hedging = Hedging(slots, health)
    for _ in range(20):
        hedging.learn("up", 1, 0.001)
    return hedging


class _Bytes:
    """Stands for those of a part."""


@pytest.mark.parametrize("way", ["in time", "late", "repeated"])
async def test_nothing_holds_the_bytes_of_a_part_that_came(way: str) -> None:
    """What moves it holds its bytes. In a cycle they would stay beyond the byte budget, until a collection of all."""
    hedging = _knowing(Slots(4))
    has_begun = asyncio.Event()

    async def move() -> weakref.ref[_Bytes]:
        data = _Bytes()

        async def first(airtime: Airtime) -> _Bytes:
            airtime.begin()
            if way == "repeated":
                await asyncio.Event().wait()
            elif way == "late":
                await has_begun.wait()
            return data

        async def repeat(claim: Claim) -> _Bytes:
            has_begun.set()
            if way == "late":
                await asyncio.Event().wait()
            assert await claim()
            return data

        assert await hedging.run("up", 1, first, repeat) is data
        return weakref.ref(data)

    gc.collect()
    gc.disable()
    try:
        held = await move()
        assert held() is None
    finally:
        gc.enable()
    assert (hedging.repeated, hedging.won) == {"in time": (0, 0), "late": (1, 0), "repeated": (1, 1)}[way]


async def test_two_that_are_late_at_once_share_no_slot() -> None:
    """There is one free slot: one of them is repeated, the other one when that slot is free again."""
    slots = Slots(1)
    hedging = _knowing(slots)
    at_once: list[int] = []
    may_end = asyncio.Event()

    async def first(airtime: Airtime) -> str:
        airtime.begin()
        await asyncio.Event().wait()
        return "first"

    async def repeat(claim: Claim) -> str:
        async with slots.hold("part"):
            at_once.append(hedging.repeated)
            await may_end.wait()
        assert await claim()
        return "again"

    async with asyncio.timeout(30):
        parts = [asyncio.create_task(hedging.run("up", 1, first, repeat)) for _ in range(2)]
        await asyncio.sleep(0)
        time.sleep(0.3)  # both are looked at in the same turn of the loop
        while not at_once:
            await asyncio.sleep(0.01)
        assert (hedging.repeated, hedging.extra_bytes) == (1, 1)
        may_end.set()
        assert await asyncio.gather(*parts) == ["again", "again"]
    assert at_once == [1, 2]


async def test_what_came_before_its_repetition_had_begun_is_not_asked_for_again() -> None:
    hedging = _knowing(Slots(4))
    has_come = asyncio.Event()

    async def first(airtime: Airtime) -> str:
        airtime.begin()
        asyncio.get_running_loop().call_later(0.1, has_come.set)
        time.sleep(0.3)  # it comes in the turn of the loop in which it is found to be late
        await has_come.wait()
        return "first"

    asked: list[str] = []

    async def repeat(claim: Claim) -> str:
        asked.append("again")
        return "again"

    assert await hedging.run("up", 1, first, repeat) == "first"
    assert asked == []
    assert (hedging.repeated, hedging.extra_bytes) == (0, 0)


async def test_small_objects_that_workers_move_are_no_parts(server: HttpServer, tmp_path: Path) -> None:
    """The bound of repetitions, and what the lane of parts learns from, is of parts alone."""
    async with Engine(config()) as engine:
        await engine.upload(bytes(100_000), PutTarget(server.url("/s")))
        await engine.download(UrlOrigin(server.url("/s"), size_bytes=100_000), tmp_path / "s")
        assert await engine.download(server.url("/s"), None)
        assert engine.limits.health.part_bytes == 0
        await engine.upload(bytes(100_000), multipart_target(server, 1))
        assert engine.limits.health.part_bytes == 100_000
