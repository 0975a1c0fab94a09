"""What a run waits for is told apart, and named; an object says how long its own requests waited."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asyncsdk.engine import (
    Download,
    Engine,
    Outcome,
    PutTarget,
    Report,
    Transfer,
    Upload,
    UrlOrigin,
    WaitReason,
)
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB, TransferConfig
from asyncsdk.engine.lanes import Slots
from asyncsdk.engine.limits import Limits, Step
from asyncsdk.engine.sampling import Counts, Sampler
from asyncsdk.engine.waits import ObjectWaits, RunWaits, bottleneck_of, counting, reason_of, waiting
from asyncsdk.engine.watching import Watch
from asyncsdk.errors import AsyncSDKError, ConnectionFailed, RateLimited, RequestTimeout, ServerError
from asyncsdk.transport.base import Request
from tests.support.feeds import RecordingFeed, multipart_target
from tests.support.http_server import Action, Connection, HttpServer, Received, answer
from tests.support.transports import InstantTransport
from tests.unit.engine.conftest import config


def late(seconds: float) -> Action:
    """Read the request, wait, and let the store answer."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        await asyncio.sleep(seconds)
        return False

    return action


def slow_reader(seconds: float) -> Action:
    """Begin to read the body after a while."""

    async def action(connection: Connection, request: Received) -> bool:
        await asyncio.sleep(seconds)
        return False

    return action


def uploads(server: HttpServer, tmp_path: Path, count: int, action: Action | None = None) -> list[Upload]:
    (tmp_path / "file").write_bytes(b"x" * 100)
    if action is not None:
        for number in range(count):
            server.script(f"/{number}", action)
    return [Upload(tmp_path / "file", PutTarget(server.url(f"/{number}"))) for number in range(count)]


async def collect(transfers: Any, **changes: object) -> Report:
    async with Engine(config(**changes)) as engine:
        report = await engine.collect(transfers)
    report.raise_for_failures()
    return report


def limited_by(report: Report) -> str:
    assert report.bottleneck is not None
    assert 0.5 < report.bottleneck.share <= 1
    assert str(report.bottleneck) in str(report)
    return report.bottleneck.reason


# --- runs ----------------------------------------------------------------------------------------------------


async def test_a_server_that_thinks_is_the_bottleneck(server: HttpServer, tmp_path: Path) -> None:
    """All there is to do is under way, and every request waits for its reply."""
    assert limited_by(await collect(uploads(server, tmp_path, 4, late(0.3)))) == "reply"


async def test_too_few_requests_at_once_are_the_bottleneck(server: HttpServer, tmp_path: Path) -> None:
    """More would find something to do, and the number was set by the caller."""
    report = await collect(uploads(server, tmp_path, 20, late(0.05)), concurrency=2)
    assert limited_by(report) == "slot"


async def test_a_server_that_reads_slowly_is_the_bottleneck(server: HttpServer, tmp_path: Path) -> None:
    """The socket is full, the body does not go out."""
    (tmp_path / "big").write_bytes(bytes(32 * MiB))
    server.script("/big", slow_reader(0.5))
    assert limited_by(await collect([Upload(tmp_path / "big", PutTarget(server.url("/big")))])) == "send"


async def test_a_limit_per_second_is_the_bottleneck(server: HttpServer, tmp_path: Path) -> None:
    """Requests wait for their turn."""
    report = await collect(uploads(server, tmp_path, 12), requests_per_second=20)
    assert limited_by(report) == "rate"


async def test_a_bandwidth_is_the_bottleneck(server: HttpServer, tmp_path: Path) -> None:
    """Connections wait for leave to send."""
    (tmp_path / "big").write_bytes(bytes(2 * MiB))
    transfers = [Upload(tmp_path / "big", PutTarget(server.url(f"/{number}"))) for number in range(2)]
    assert limited_by(await collect(transfers, bandwidth=6 * MiB)) == "rate"


async def test_a_bandwidth_is_the_bottleneck_of_parts_too(server: HttpServer, tmp_path: Path) -> None:
    """Requests that count what they send are looked at as the others are."""
    (tmp_path / "big").write_bytes(bytes(4 * MiB))
    upload = Upload(tmp_path / "big", multipart_target(server, 4), size_bytes=4 * MiB)
    assert limited_by(await collect([upload], bandwidth=6 * MiB)) == "rate"


class SlowFeed(RecordingFeed):
    """Gives one transfer at a time after *take_seconds*, and commits in *settle_seconds*."""

    def __init__(self, transfers: Sequence[Transfer], *, take_seconds: float = 0.0, settle_seconds: float = 0.0):
        super().__init__(transfers)
        self._take_seconds = take_seconds
        self._settle_seconds = settle_seconds

    async def take(self, want: int) -> Sequence[Transfer]:
        await asyncio.sleep(self._take_seconds)
        return await super().take(1 if self._take_seconds else want)

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        await asyncio.sleep(self._settle_seconds)
        return await super().settle(outcomes)


async def test_whoever_gives_too_little_is_the_bottleneck(server: HttpServer, tmp_path: Path) -> None:
    """A listing, a platform that prepares slowly, a slow iterable."""
    feed = SlowFeed(uploads(server, tmp_path, 6), take_seconds=0.1)
    assert limited_by(await collect(feed)) == "feed"


async def test_a_platform_that_commits_slowly_is_the_bottleneck(server: HttpServer, tmp_path: Path) -> None:
    """Nothing is under way but the commit."""
    feed = SlowFeed(uploads(server, tmp_path, 6), settle_seconds=0.4)
    assert limited_by(await collect(feed)) == "commit"


async def test_no_bottleneck_is_made_up(tmp_path: Path) -> None:
    """Nothing was seen waiting."""
    assert Report().bottleneck is None
    assert "limited" not in str(Report())


# --- objects -------------------------------------------------------------------------------------------------


async def test_an_object_says_what_it_waited_for(server: HttpServer, tmp_path: Path) -> None:
    """Pauses between attempts count as what made the attempt fail."""
    server.script("/0", answer(503), late(0.1))
    server.script("/1", answer(429, headers={"Retry-After": "0.2"}))
    transfers = uploads(server, tmp_path, 3)
    patient = config(retry=replace(config().retry, retry_after_max_seconds=0.2))
    async with Engine(patient) as engine, engine.run(transfers) as outcomes:
        found = {outcome.transfer.target.url[-1]: outcome async for outcome in outcomes}  # type: ignore[union-attr]
    assert found["2"].waits is None  # went through at once: nobody looked at a clock
    assert found["0"].attempts == found["1"].attempts == 2
    assert set(found["0"].waits or {}) <= {WaitReason.REPLY, WaitReason.SLOT, WaitReason.CONNECT, WaitReason.SEND}
    assert (found["0"].waits or {})[WaitReason.REPLY] > 0


async def test_memory_that_others_hold_is_waited_for(server: HttpServer) -> None:
    """Exactly counted, and seen by the run."""
    server.objects["/big"] = bytes(3 * MiB)
    lease = await process_budget().take(process_budget().limit_bytes)
    asyncio.get_running_loop().call_later(0.5, lease.release)
    downloads = [Download(UrlOrigin(server.url("/big"), size_bytes=3 * MiB)) for _ in range(4)]
    async with Engine(config()) as engine, engine.run(downloads) as outcomes:
        found = [outcome async for outcome in outcomes]
        waits = outcomes.watch.waits
    assert [outcome.ok for outcome in found] == [True] * 4
    assert all((outcome.waits or {})[WaitReason.MEMORY] > 0.1 for outcome in found)
    assert waits.bottleneck is not None
    assert waits.bottleneck.reason == "memory"
    assert not +waits.live


async def test_parts_say_what_they_waited_for(server: HttpServer, tmp_path: Path) -> None:
    """The parts of several objects compete for two slots; each object says how long its own waited."""
    (tmp_path / "big").write_bytes(bytes(4 * MiB))
    for number in range(3):
        for _ in range(5):
            server.script(f"/{number}", late(0.05))
    targets = [multipart_target(server, 4, path=f"/{number}", upload_id=f"U{number}") for number in range(3)]
    transfers = [Upload(tmp_path / "big", target) for target in targets]
    async with Engine(config(concurrency=2)) as engine, engine.run(transfers) as outcomes:
        found = [outcome.waits or {} async for outcome in outcomes]
    assert sum(waits.get(WaitReason.SLOT, 0) for waits in found) > 0.1
    assert all(waits[WaitReason.REPLY] > 0 for waits in found)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RateLimited("no"), WaitReason.RATE),
        (ServerError("no", retry_after=3), WaitReason.RATE),
        (ServerError("no"), WaitReason.REPLY),
        (ConnectionFailed("no"), WaitReason.CONNECT),
        (RequestTimeout("connect"), WaitReason.CONNECT),
        (RequestTimeout("send"), WaitReason.SEND),
        (RequestTimeout("reply"), WaitReason.REPLY),
    ],
)
def test_a_pause_counts_as_what_made_it_necessary(error: AsyncSDKError, reason: WaitReason) -> None:
    assert reason_of(error) is reason


def test_waiting_counts_for_the_object_of_this_task_only() -> None:
    """Outside of any, nothing happens; blocks inside of each other give back what they found."""
    run = RunWaits()
    one, other = ObjectWaits(run.live), ObjectWaits(run.live)
    with waiting(WaitReason.DISK):
        assert not run.live
    with counting(one), waiting(WaitReason.DISK):
        with counting(other):
            assert run.live == {WaitReason.DISK: 1}
        with pytest.raises(KeyError), waiting(WaitReason.RATE):
            assert run.live[WaitReason.RATE] == 1
            raise KeyError
    assert set(one.seconds) == {WaitReason.DISK, WaitReason.RATE}
    assert not other.seconds
    assert not +run.live


# --- looks ---------------------------------------------------------------------------------------------------


class Stand:
    """What the express lane, the limits and the slots of a run look like at one moment."""

    def __init__(self, requests: list[Request], slot_waiters: int, rate_waiters: int, paced: tuple[int, int]) -> None:
        self.requests = lambda: requests
        self.slot_waiters = slot_waiters
        self.paced = paced
        self.limits = SimpleNamespace(
            slots=Slots(4), concurrency="auto", requests=SimpleNamespace(waiting=rate_waiters), paced=paced
        )


def looked(
    phases: Sequence[str],
    *,
    is_pinned: bool = False,
    live: dict[WaitReason, int] | None = None,
    slot_waiters: int = 0,
    rate_waiters: int = 0,
    paced: tuple[int, int] = (0, 0),
    **facts: object,
) -> dict[str, float]:
    """Return the shares that one look at four places finds, with a request in each of *phases*."""
    watch = Watch()
    watch.waits.live.update(live or {})
    requests = [Request("PUT", "http://h/") for _ in phases]
    stand: Any = Stand(requests, slot_waiters, rate_waiters, paced)
    if is_pinned:
        stand.limits.concurrency = 4
    values: dict[str, Any] = {
        "queued": 0, "unfinished": 0, "finished": 0, "idle_elsewhere": None, "is_settling": False, "wants_more": False,
    }  # fmt: skip
    counts = Counts(**(values | facts))
    sampler = Sampler(watch, lambda: counts, stand, InstantTransport(), stand.limits)
    sampler._phases = lambda: {  # type: ignore[method-assign]
        id(request): phase for request, phase in zip(requests, phases, strict=True) if phase != "connect"
    }
    sampler.look()
    total = sum(watch.waits.seconds.values())
    return {reason.value: round(seconds / total, 3) for reason, seconds in watch.waits.seconds.items() if seconds}


@pytest.mark.parametrize(
    ("shares", "phases", "facts"),
    [
        ({"send": 0.25, "reply": 0.5, "disk": 0.25}, ["send", "reply", "body", "thread"], {}),
        ({"connect": 1.0}, ["connect", "connect"], {}),
        ({}, [], {}),
        ({"reply": 1.0}, ["reply"] * 4, {"queued": 5}),
        ({"slot": 1.0}, ["reply"] * 4, {"queued": 5, "is_pinned": True}),
        ({"slot": 0.5, "reply": 0.5}, ["reply", "reply", "body", "body"], {"queued": 5, "is_pinned": True}),
        ({"reply": 1.0}, ["reply"] * 4, {"queued": 5, "is_pinned": True, "finished": 10**6}),
        ({"reply": 1.0}, ["reply"] * 3, {"is_pinned": True}),
        ({"rate": 0.5, "send": 0.5}, ["send"] * 4, {"paced": (2, 0)}),
        ({"rate": 1.0}, [], {"rate_waiters": 9, "queued": 9}),
        ({"reply": 0.5, "feed": 0.5}, ["reply", "reply"], {"wants_more": True, "unfinished": 2}),
        ({"commit": 1.0}, [], {"is_settling": True, "wants_more": True}),
        ({"reply": 1.0}, ["reply"], {"is_settling": True, "wants_more": False, "unfinished": 1, "idle_elsewhere": 0}),
        ({"reply": 0.25, "feed": 0.75}, ["reply"], {"wants_more": True, "unfinished": 9, "idle_elsewhere": 3}),
        ({"slot": 1.0}, [], {"slot_waiters": 4, "queued": 7}),
        ({"memory": 0.5, "reply": 0.5}, ["reply"] * 2, {"live": {WaitReason.MEMORY: 7}}),
        ({"disk": 1.0}, [], {"live": {WaitReason.DISK: 1}}),
    ],
)
async def test_a_look_counts_every_place_once(
    shares: dict[str, float], phases: list[str], facts: dict[str, Any]
) -> None:
    """Never more than there are places."""
    assert looked(phases, **facts) == shares


async def test_a_change_of_concurrency_is_told_with_its_reason() -> None:
    """As the trace of the limits has it; a number that somebody set has none."""
    seen: list[Any] = []
    limits = Limits(TransferConfig())
    counts = Counts(queued=0, unfinished=0, finished=0, idle_elsewhere=None, is_settling=False, wants_more=False)
    sampler = Sampler(Watch(seen.append), lambda: counts, None, InstantTransport(), limits)
    before = limits.slots.small_limit
    limits.pilot.part.trace.append(Step(0.1, "part", before + 8, 5e6, "pays"))
    limits.pilot.small.trace.append(Step(0.2, "small", before + 8, 120.0, "try more"))
    limits.slots.resize(small=before + 8)
    sampler.look()
    limits.concurrency = 3
    sampler.look()
    sampler.look()
    told = [(event.lane, event.before, event.after, event.reason, event.per_second) for event in seen]
    assert told[0] == ("small", before, before + 8, "try more", 120.0)
    assert [one for one in told[1:] if one[0] == "small"] == [("small", before + 8, 3, None, None)]
    assert {one[3] for one in told[1:]} == {None}


def test_a_busy_processor_is_the_bottleneck_whatever_seems_to_be_waited_for() -> None:
    """Replies that are there wait for us."""
    found = bottleneck_of({WaitReason.REPLY: 9.0}, 0.97)
    assert found is not None
    assert str(found) == "cpu (97%)"
    found = bottleneck_of({WaitReason.REPLY: 3.0, WaitReason.SEND: 1.0}, 0.5)
    assert str(found) == "reply (75%)"


def test_reports_of_several_runs_add_up() -> None:
    """Shares are weighed by how long each took."""
    report = Report()
    report.add_waits({WaitReason.REPLY: 1.0}, 1.0, 1.0)
    report.add_waits({WaitReason.REPLY: 1.0, WaitReason.SEND: 3.0}, 0.0, 3.0)
    assert report.waits == {WaitReason.REPLY: 2.0, WaitReason.SEND: 3.0}
    assert report.cpu_share == 0.25
    assert str(report.bottleneck) == "send (60%)"
