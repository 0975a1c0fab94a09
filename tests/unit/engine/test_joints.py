"""Where parts of the engine meet: what one leaves behind must not be what another one stumbles over."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import anyio
import pytest

from asyncsdk.engine import Download, Drained, Engine, Event, PutTarget, Upload, UrlOrigin
from asyncsdk.engine.attempts import Airtime
from asyncsdk.engine.config import MiB
from asyncsdk.engine.downloads import LargeObject
from asyncsdk.engine.draining import take_waiting
from asyncsdk.engine.health import Health
from asyncsdk.engine.lanes import Lane, Slots
from asyncsdk.engine.limits.hedging import Claim, Hedging
from asyncsdk.engine.waits import WaitReason
from asyncsdk.engine.work import Work
from asyncsdk.errors import CircuitOpen, DestinationUnwritable
from tests.support.http_server import Connection, HttpServer, Received, answer
from tests.unit.engine.conftest import config


async def test_draining_from_the_callback_that_is_told_of_it(server: HttpServer, tmp_path: Path) -> None:
    """It is told once, and what was dropped is not forgotten."""
    (tmp_path / "file").write_bytes(b"x")
    told: list[Drained] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Drained):
            told.append(event)
            assert len(told) < 10
            outcomes.drain()

    transfers = [Upload(tmp_path / "file", PutTarget(server.url(f"/{number}"))) for number in range(500)]
    async with Engine(config()) as engine:
        outcomes = engine.run(transfers, on_event=on_event)
        async with outcomes:
            count = 0
            async for _ in outcomes:
                count += 1
                if count == 1:
                    outcomes.drain()
            assert not outcomes.is_complete
    assert len(told) == 1
    assert count < 500


async def test_what_cannot_be_removed_keeps_nothing_from_its_outcome() -> None:
    """At a deadline, half-received files are removed; one that stays takes no other transfer along."""

    class Stuck(LargeObject):
        def discard(self) -> None:
            raise DestinationUnwritable("stuck: a file remains", destination="stuck")

    class Loose(LargeObject):
        is_gone = False

        def discard(self) -> None:
            Loose.is_gone = True

    transfers = [Download(UrlOrigin(f"http://127.0.0.1:1/{number}"), f"/tmp/{number}") for number in range(3)]
    small: Lane[Work | Upload | Download] = Lane()
    large: Lane[tuple[Work | Upload | Download, LargeObject | None]] = Lane()
    small.put(transfers[0])
    large.put((transfers[1], Stuck(1, None)))
    large.put((transfers[2], Loose(1, None)))
    failures: list[Exception] = []
    assert take_waiting(None, small, large, failures.append) == transfers
    assert Loose.is_gone
    assert [str(error) for error in failures] == ["stuck: a file remains"]


@pytest.mark.parametrize("status", [404, 403])
async def test_an_answer_that_is_no_refusal_closes_the_circuit(tmp_path: Path, status: int) -> None:
    """A server that works again may well say that the object asked for first is not there."""
    (tmp_path / "file").write_bytes(b"x")
    async with HttpServer() as server, Engine(config()) as engine:
        url = server.url("/missing")
        origins = engine.limits.origins
        for _ in range(100):
            origins.failed(url)
        assert origins.must_wait(url)
        for known in origins._known.values():
            known.next_try = 0.0  # the pause is over
        server.script("/missing", answer(status), answer(status))
        targets = [Upload(tmp_path / "file", PutTarget(server.url(path))) for path in ("/missing", "/there")]
        for upload in targets:
            async with engine.run([upload]) as outcomes:
                (outcome,) = [outcome async for outcome in outcomes]
            assert not isinstance(outcome.error, CircuitOpen)
        assert outcome.status == "done"
        assert origins.is_clear


async def test_a_repetition_that_is_refused_is_no_object_given_up(tmp_path: Path) -> None:
    """The second request for a late part: that it is refused says nothing of the object, and counts for nothing."""
    size, asked, was_refused = 24 * MiB, 0, asyncio.Event()

    async def late(connection: Connection, request: Received) -> bool:
        nonlocal asked
        if not (request.header("range") or "").startswith(f"bytes={20 * MiB}-"):
            return False
        asked += 1
        if asked == 1:
            await was_refused.wait()
            return False
        await connection.reply(503)
        was_refused.set()
        return True

    async with HttpServer() as server, Engine(config()) as engine:
        server.objects["/o"] = os.urandom(size)
        server.script("/o", *[late] * 200)
        async with asyncio.timeout(30):
            await engine.download(UrlOrigin(server.url("/o"), size_bytes=size), tmp_path / "o")
        assert engine.limits.hedging.repeated == 1
        assert engine.limits.origins.is_clear
    assert asked == 2


async def test_a_repetition_has_ended_when_its_part_has_its_result() -> None:
    """Whoever gets the result closes the file that the repetition is sending."""
    health = Health()
    health.part_bytes = 10**9
    hedging = Hedging(Slots(4), health)
    for _ in range(10):
        hedging.learn("up", 1, 0.001)
    has_begun, has_ended = asyncio.Event(), asyncio.Event()

    async def first(airtime: Airtime) -> str:
        airtime.begin()
        await has_begun.wait()
        return "first"

    async def repeat(claim: Claim) -> str:
        has_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(0.01)  # a thread that still reads
            has_ended.set()
        return "again"

    assert await hedging.run("up", 1, first, repeat) == "first"
    assert has_ended.is_set()


@pytest.mark.parametrize("way", ["limit per second", "retry-after"])
async def test_what_an_object_waits_is_counted_once(server: HttpServer, tmp_path: Path, way: str) -> None:
    """It cannot have waited longer for its turn than it took."""
    server.objects["/o"] = b"x"
    limited = way == "limit per second"
    async with Engine(config(requests_per_second=4 if limited else None)) as engine:
        origin = UrlOrigin(server.url("/o"), size_bytes=1)
        if not limited:
            engine.limits.origins.hold(server.url("/"), 0.3)
        async with engine.run([Download(origin, None) for _ in range(3)]) as outcomes:
            waited = [(outcome.waits or {}, outcome.seconds) async for outcome in outcomes]
    rates = [(waits.get(WaitReason.RATE, 0.0), seconds) for waits, seconds in waited]
    assert any(rate for rate, _ in rates)
    assert all(rate <= seconds for rate, seconds in rates)
