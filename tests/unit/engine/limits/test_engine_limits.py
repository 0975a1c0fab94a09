"""Limits as an engine keeps them, on real sockets: both transports, both lanes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest

from asyncsdk.engine import (
    Bandwidth,
    Download,
    Engine,
    Outcome,
    PutTarget,
    Skipped,
    Timeouts,
    Transfer,
    TransferConfig,
    Upload,
    UrlOrigin,
)
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import KiB, MiB
from asyncsdk.engine.limits.controller import Step
from asyncsdk.errors import ConfigError, DeadlineExceeded
from asyncsdk.transport.base import Transport
from asyncsdk.transport.httpx_transport import HttpxTransport
from asyncsdk.transport.lean import LeanTransport
from tests.support.feeds import multipart_target
from tests.support.http_server import Connection, HttpServer, Received, answer, stall
from tests.unit.engine.conftest import FAST, config

TRANSPORTS: dict[str, Callable[[], Transport]] = {"lean": LeanTransport, "httpx": HttpxTransport}


@pytest.fixture(params=sorted(TRANSPORTS))
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    made = TRANSPORTS[request.param]()
    yield made
    await made.aclose()  # type: ignore[attr-defined]


async def small_up(engine: Engine, server: HttpServer, folder: Path) -> int:
    path = folder / "small"
    path.write_bytes(os.urandom(50 * KiB))
    report = await engine.collect(Upload(path, PutTarget(server.url(f"/{n}"))) for n in range(20))
    assert report.done == 20
    return report.bytes_done


async def medium_up(engine: Engine, server: HttpServer, folder: Path) -> int:
    path = folder / "medium"
    path.write_bytes(os.urandom(MiB))
    report = await engine.collect([Upload(path, PutTarget(server.url("/medium")))])
    assert server.objects["/medium"] == path.read_bytes()
    return report.bytes_done


async def parts_up(engine: Engine, server: HttpServer, folder: Path) -> int:
    data = os.urandom(2 * MiB)
    await engine.upload(data, multipart_target(server, 2))
    assert server.objects["/m"] == data
    return len(data)


async def small_down(engine: Engine, server: HttpServer, folder: Path) -> int:
    server.objects["/s"] = os.urandom(50 * KiB)
    origin = UrlOrigin(server.url("/s"), size_bytes=50 * KiB)
    report = await engine.collect(Download(origin, folder / str(n)) for n in range(20))
    assert report.done == 20
    return report.bytes_done


async def ranges_down(engine: Engine, server: HttpServer, folder: Path) -> int:
    server.objects["/r"] = data = os.urandom(3 * MiB)
    await engine.download(UrlOrigin(server.url("/r"), size_bytes=len(data)), folder / "r")
    assert (folder / "r").read_bytes() == data
    return len(data)


WORKS = {work.__name__: work for work in (small_up, medium_up, parts_up, small_down, ranges_down)}


@pytest.mark.parametrize("name", sorted(WORKS))
async def test_bytes_keep_to_the_bandwidth(server: HttpServer, tmp_path: Path, transport: Transport, name: str) -> None:
    """It takes as long as the limit says at least, for whatever moves, though idle timeouts are shorter than that."""
    rate = 2 * MiB
    timeouts = Timeouts(idle=0.3, rate_bytes=rate, rate_seconds=0.2)  # no wait for our own limit counts
    async with Engine(config(bandwidth=rate, timeouts=timeouts), transport=transport) as engine:
        started = monotonic()
        moved = await WORKS[name](engine, server, tmp_path)
        seconds = monotonic() - started
        assert moved >= 1_000_000
        assert engine.limits.waited()["rate"] > 0
    # What is with the system already is not held back; a piece in each direction may be.
    assert seconds >= (moved - 0.1 * rate - 2 * 256 * KiB) / rate


async def test_the_bandwidth_of_one_direction_leaves_the_other_alone(server: HttpServer, tmp_path: Path) -> None:
    async with Engine(config(bandwidth=Bandwidth(up=1))) as engine:
        assert await ranges_down(engine, server, tmp_path)
        assert engine.limits.bandwidth == Bandwidth(up=1)


@pytest.mark.parametrize("name", ["medium_up", "parts_up", "ranges_down"])
async def test_a_bandwidth_that_is_lifted_holds_nobody_back(
    server: HttpServer, tmp_path: Path, transport: Transport, name: str
) -> None:
    """What would take hours goes on at once."""
    async with Engine(config(bandwidth=100), transport=transport) as engine:
        task = asyncio.create_task(WORKS[name](engine, server, tmp_path))
        done, _ = await asyncio.wait([task], timeout=0.3)
        assert not done
        engine.limits.bandwidth = None
        await asyncio.wait_for(task, 30)


async def test_a_transfer_that_waits_for_its_turn_can_be_cancelled(server: HttpServer, tmp_path: Path) -> None:
    async with Engine(config(bandwidth=100)) as engine:
        task = asyncio.create_task(medium_up(engine, server, tmp_path))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.limits.sent is not None
        assert engine.limits.sent.waiting == 0
    assert process_budget().leased_bytes == 0


async def test_requests_keep_to_their_rate(server: HttpServer, tmp_path: Path, transport: Transport) -> None:
    """Small objects and parts, retries too: all requests count."""
    server.script("/0", answer(503), answer(503))
    async with Engine(config(requests_per_second=50), transport=transport) as engine:
        started = monotonic()
        report = await engine.collect(Upload(b"x", PutTarget(server.url(f"/{n}"))) for n in range(30))
        await engine.upload(bytes(2 * MiB), multipart_target(server, 2))
        seconds = monotonic() - started
        assert report.done == 30
        asked = len(server.of("PUT")) + len(server.of("POST"))
        assert asked >= 35
        assert seconds >= (asked - 5 - 1) / 50
        engine.limits.requests_per_second = 0.001
        task = asyncio.create_task(engine.collect(Upload(b"x", PutTarget(server.url(f"/{n}"))) for n in range(90)))
        await asyncio.sleep(0.1)
        engine.limits.requests_per_second = None
        assert (await asyncio.wait_for(task, 30)).done == 90


async def test_a_run_that_is_left_while_it_waits_leaves_nobody_waiting(server: HttpServer) -> None:
    async with Engine(config(requests_per_second=0.001)) as engine:
        async with engine.run(Upload(b"x", PutTarget(server.url(f"/{n}"))) for n in range(50)):
            await asyncio.sleep(0.1)
        assert engine.limits.requests is not None
        assert engine.limits.requests.waiting == 0
        assert engine.limits.slots.free == 4


# --- servers that say no -------------------------------------------------------------------------------------


async def test_a_server_that_asks_for_a_pause_is_asked_by_nobody_in_it(server: HttpServer, tmp_path: Path) -> None:
    """One of fifty is told to come back; the others of that server wait as well, and all arrive."""
    server.script("/3", answer(429, headers={"Retry-After": "1"}))
    times: list[float] = []

    async def note(connection: Connection, request: Received) -> bool:
        times.append(monotonic())
        return False

    server.script("*", *[note] * 100)
    retry = FAST.__class__(max_attempts=4, wait_initial_seconds=0.001, retry_after_max_seconds=0.5)
    async with Engine(config(concurrency=2, retry=retry)) as engine:
        report = await engine.collect(Upload(b"x", PutTarget(server.url(f"/{n}"))) for n in range(50))
    assert report.done == 50
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) >= 0.45
    assert len(times) == 50


async def test_retries_of_a_run_are_a_share_of_what_went_well(server: HttpServer) -> None:
    """Every second object is refused; with retries for 5 on top of a tenth, those after the sixth have none."""
    for number in range(0, 24, 2):
        server.script(f"/{number}", *[answer(503)] * 2)
    retry = FAST.__class__(max_attempts=2, wait_initial_seconds=0.001, budget_least=5, budget_share=0.1)
    attempts: list[int] = []
    async with Engine(config(concurrency=1, retry=retry)) as engine:
        await engine.collect(
            (Upload(b"x", PutTarget(server.url(f"/{n}"))) for n in range(24)),
            on_outcome=lambda outcome: attempts.append(outcome.attempts) if not outcome.ok else None,
        )
    assert len(attempts) == 12
    assert sorted(attempts) in ([1] * 6 + [2] * 6, [1] * 5 + [2] * 7)


# --- the deadline --------------------------------------------------------------------------------------------


async def test_at_the_deadline_what_is_done_is_settled_and_the_rest_has_failed(
    server: HttpServer, tmp_path: Path
) -> None:
    """Small, large and retried objects under way, and those that wait: one outcome each, nothing left behind."""
    for path in ("/2", "/3"):
        server.script(path, stall())
    server.script("/4", *[answer(503)] * 3)
    server.objects["/large"] = bytes(4 * MiB)
    server.script("/large", *[stall()] * 4)
    retry = FAST.__class__(max_attempts=4, wait_initial_seconds=30)
    outcomes: list[Outcome] = []
    (tmp_path / "file").write_bytes(b"y" * 100_000)
    transfers: list[Upload | Download] = [
        Upload(tmp_path / "file" if n % 2 else b"x", PutTarget(server.url(f"/{n}"))) for n in range(5)
    ]
    transfers.append(Download(UrlOrigin(server.url("/large"), size_bytes=4 * MiB), tmp_path / "large"))
    transfers += [Upload(b"x", PutTarget(server.url("/2"))) for _ in range(3)]
    server.script("/2", *[stall()] * 4)
    async with Engine(config(concurrency=8, retry=retry, deadline_seconds=1.0)) as engine:
        report = await engine.collect(transfers, on_outcome=outcomes.append)
    assert len(outcomes) == len(transfers)
    assert report.done >= 2
    assert report.failed == len(transfers) - report.done
    assert report.failed >= 4
    assert set(report.failures_by_code) == {"deadline"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    assert engine.limits.slots.free == 8


async def test_a_feed_that_was_not_taken_to_its_end_ends_the_run_with_the_deadline(server: HttpServer) -> None:
    async def endless() -> AsyncIterator[Upload]:
        number = 0
        while True:
            number += 1
            yield Upload(b"x", PutTarget(server.url(f"/{number}")))
            await asyncio.sleep(0.01)

    outcomes: list[Outcome] = []
    async with Engine(config(deadline_seconds=0.5)) as engine:
        with pytest.raises(DeadlineExceeded, match="not all of its feed"):
            await engine.collect(endless(), on_outcome=outcomes.append)
    assert any(outcome.ok for outcome in outcomes)


class Committing:
    """A feed whose one object is there, and whose platform never answers; it is told when nobody is to wait."""

    def __init__(self) -> None:
        self._left = [Skipped("object")]
        self._hurried = asyncio.Event()

    async def take(self, want: int) -> Sequence[Transfer]:
        taken, self._left = self._left, []
        return taken

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> None:
        return None

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        await self._hurried.wait()
        return outcomes

    def wait_no_longer(self) -> None:
        self._hurried.set()


async def test_at_the_deadline_a_feed_waits_no_longer_for_its_platform() -> None:
    """Also when nothing moves any more, and only what has arrived is to be committed."""
    async with Engine(config(deadline_seconds=0.1)) as engine, asyncio.timeout(30):
        report = await engine.collect(Committing())
    assert (report.skipped, report.is_complete) == (1, True)


async def test_a_single_transfer_has_the_same_deadline(server: HttpServer) -> None:
    server.script("/o", stall())
    async with Engine(config(deadline_seconds=0.3)) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.upload(b"x", PutTarget(server.url("/o")))
        await engine.upload(b"x", PutTarget(server.url("/p")))
        assert engine.limits.slots.free == 4


# --- how many at once ----------------------------------------------------------------------------------------


async def test_requests_at_once_grow_while_that_pays_and_are_never_more_than_allowed(server: HttpServer) -> None:
    """A server that takes its time, however many ask: more at once is faster, up to the limit."""
    server.delay = 0.05
    async with Engine(config(concurrency="auto", concurrency_max=40)) as engine:
        report = await engine.collect(Upload(b"x", PutTarget(server.url(f"/{n % 50}"))) for n in range(2500))
        assert report.done == 2500
        assert engine.limits.slots.small_limit > 16
        assert next(step.limit for step in report.concurrency if step.lane == "small") == 16
        assert engine.limits.concurrency == "auto"
    assert 16 < server.most_active <= 40


async def test_a_report_tells_of_its_own_run(server: HttpServer) -> None:
    """Not of what the engine found out before: of that, each lane's number at the beginning, and why it was that."""
    async with Engine(config(concurrency="auto", concurrency_max=40)) as engine:
        small, part = engine.limits.pilot.small.trace, engine.limits.pilot.part.trace
        begun = [small[0], part[0]]
        before, during = Step(1.0, "small", 24, 10.0, "pays"), Step(2.0, "small", 32, 20.0, "pays")
        transfers = [Upload(b"x", PutTarget(server.url("/o")))]
        first = await engine.collect(transfers, on_outcome=lambda outcome: small.append(before))
        second = await engine.collect(transfers, on_outcome=lambda outcome: small.append(during))
        third = await engine.collect(transfers)
        assert engine.limits.trace == [*begun, before, during]
    assert first.concurrency == [*begun, before]
    assert second.concurrency == [part[0], before, during]
    assert third.concurrency == [part[0], during]


async def test_parts_at_once_have_room_in_the_budget_of_the_process() -> None:
    """Whoever set it: an engine that says nothing of memory has what there is."""
    config = TransferConfig()
    before = process_budget().limit_bytes
    try:
        for size, most in ((1024 * MiB, 256), (64 * MiB, 16)):
            process_budget().resize(size)
            async with Engine(config) as engine:
                assert engine.limits.pilot.part.most == most
    finally:
        process_budget().resize(before)


async def test_requests_at_once_can_be_set_while_running(server: HttpServer) -> None:
    server.delay = 0.01
    async with Engine(config(concurrency=8)) as engine:
        await engine.collect(Upload(b"x", PutTarget(server.url(f"/{n}"))) for n in range(60))
        assert 2 < server.most_active <= 8
        server.most_active = 0
        engine.limits.concurrency = 2
        await engine.collect(Upload(b"x", PutTarget(server.url(f"/{n}"))) for n in range(60))
        assert server.most_active == 2
        engine.limits.concurrency = 8
        server.most_active = 0
        await engine.collect(Upload(b"x", PutTarget(server.url(f"/{n}"))) for n in range(60))
        assert 2 < server.most_active <= 8
        engine.limits.concurrency = 2
        with pytest.raises(ConfigError):
            engine.limits.concurrency = 9
        assert engine.limits.slots.free == 2


async def test_a_number_that_was_set_stays(server: HttpServer) -> None:
    """Nothing is found out then, however much more would pay."""
    server.delay = 0.02
    async with Engine(config(concurrency=2)) as engine:
        report = await engine.collect(Upload(b"x", PutTarget(server.url(f"/{n}"))) for n in range(150))
        assert report.done == 150
        assert report.concurrency == []
        assert engine.limits.slots.small_limit == 2
    assert server.most_active == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"concurrency": "many"},
        {"concurrency": True},
        {"concurrency_max": 0},
        {"bandwidth": 0},
        {"bandwidth": 1.5},
        {"requests_per_second": 0},
        {"requests_per_second": "5"},
        {"deadline_seconds": -1},
        {"deadline_seconds": float("nan")},
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        TransferConfig(**wrong)  # type: ignore[arg-type]
