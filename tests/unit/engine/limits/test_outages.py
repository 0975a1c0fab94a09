"""A server that is out for a while costs time and nothing else; one that is out for good ends the run once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from asyncsdk.engine import Download, Engine, Outcome, PutTarget, RetryPolicy, Transfer, Upload, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.engine.limits import origins
from asyncsdk.engine.parking import url_of
from asyncsdk.errors import CircuitOpen, ConnectionFailed, ServerError
from tests.support.feeds import multipart_target
from tests.support.http_server import Connection, HttpServer, Received
from tests.unit.engine.conftest import config

COUNT = 300
FEW = 120
"""Requests in an outage: 16 to 32 that find it out, those under way, some tries. Without waiting it is thousands."""

POLICIES = {
    "attempts": RetryPolicy(max_attempts=6, wait_initial_seconds=0.02, wait_max_seconds=0.05, budget_least=100_000),
    "budget": RetryPolicy(max_attempts=8, wait_initial_seconds=0.001, wait_max_seconds=0.002, budget_least=40),
}
"""What ends an object that is refused again and again: its attempts, or the retries of the run."""


class Flaky(HttpServer):
    """Refuses everything while it is out.

    Attributes:
        is_out: Whether it does.
        out_after: Requests that it answers before it is.
        refused: Requests that it refused.
    """

    is_out = False
    refused = 0
    out_after: int | None = None

    async def answer(self, connection: Connection, request: Received) -> None:
        if self.out_after is not None:
            self.out_after -= 1
            if self.out_after < 0:
                self.out_after, self.is_out = None, True
        if self.is_out:
            self.refused += 1
            await connection.reply(503)
        else:
            await super().answer(connection, request)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    monkeypatch.setattr(origins, "_SHORTEST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(origins, "_SUSPECT_SECONDS", 0.04)
    monkeypatch.setattr(origins, "_LONGEST_PAUSE_SECONDS", 0.3)
    monkeypatch.setattr("asyncsdk.engine.parking._LEAST_SECONDS", 0.01)


@pytest.fixture
async def flaky() -> AsyncIterator[Flaky]:
    async with Flaky() as server:
        yield server


async def pieces() -> AsyncIterator[bytes]:
    yield b"x" * 100


async def back_in(server: Flaky, seconds: float) -> None:
    while not server.is_out:
        await asyncio.sleep(0.01)
    await asyncio.sleep(seconds)
    server.is_out = False


def small_files(server: Flaky, folder: Path) -> Iterator[Transfer]:
    (folder / "source").write_bytes(b"x" * 1000)
    for number in range(COUNT):
        yield Upload(folder / "source", PutTarget(server.url(f"/{number}")))


def streams(server: Flaky, folder: Path) -> Iterator[Transfer]:
    for number in range(COUNT):
        yield Upload(pieces(), PutTarget(server.url(f"/{number}")), size_bytes=100)


def downloads(server: Flaky, folder: Path) -> Iterator[Transfer]:
    for number in range(COUNT):
        server.objects[f"/{number}"] = b"x" * 1000
        yield Download(UrlOrigin(server.url(f"/{number}"), size_bytes=1000), folder / str(number))


def ranges(server: Flaky, folder: Path) -> Iterator[Transfer]:
    for number in range(20):
        server.objects[f"/{number}"] = os.urandom(3 * MiB)
        yield Download(UrlOrigin(server.url(f"/{number}"), size_bytes=3 * MiB), folder / str(number))


def parts(server: Flaky, folder: Path) -> Iterator[Transfer]:
    (folder / "large").write_bytes(bytes(5 * MiB))
    for number in range(12):
        yield Upload(folder / "large", multipart_target(server, 5, upload_id=f"U{number}"))


KINDS = {kind.__name__: kind for kind in (small_files, streams, downloads, ranges, parts)}


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("name", sorted(KINDS))
async def test_an_outage_costs_no_object(flaky: Flaky, tmp_path: Path, name: str, policy: str) -> None:
    """Whatever is sent or fetched, and whatever would end it: all waits, few are asked for, and all goes on."""
    flaky.out_after = 20
    async with Engine(config(concurrency=16, retry=POLICIES[policy], outage_seconds=60)) as engine:
        back = asyncio.create_task(back_in(flaky, 0.7))
        async with asyncio.timeout(60):
            report = await engine.collect(KINDS[name](flaky, tmp_path))
        await back
        assert engine.limits.origins.is_clear
    assert (report.failed, report.is_complete) == (0, True)
    assert 16 <= flaky.refused <= FEW


async def test_a_server_that_cannot_be_reached_any_more_is_waited_for() -> None:
    """Its process was killed and is started again: the same port answers."""
    async with HttpServer() as first:
        url = first.url
    transfers = [Upload(b"x" * 100, PutTarget(url(f"/{number}"))) for number in range(COUNT)]
    async with Engine(config(concurrency=16, outage_seconds=60)) as engine:
        before = HttpServer()
        before._wanted_port = first.port
        async with before:
            assert (await engine.collect([Upload(b"x", PutTarget(url("/before")))])).ok
        run = asyncio.create_task(engine.collect(transfers))
        async with asyncio.timeout(50):
            while not engine.limits.origins.is_out(url("/")):
                await asyncio.sleep(0.01)
            again = HttpServer()
            again._wanted_port = first.port
            async with again:
                assert (await run).done == COUNT
        assert len(again.of("PUT")) == COUNT


class Silent(HttpServer):
    """Takes requests and answers none."""

    async def answer(self, connection: Connection, request: Received) -> None:
        await connection.wire.close()
        raise EOFError


@pytest.mark.parametrize("how", ["refused", "broken"])
async def test_a_few_objects_of_a_server_that_never_answered_fail_with_their_own_errors(how: str) -> None:
    """A name that is wrong, a port where something else listens: their attempts are what they have."""
    async with Silent() as silent:
        if how == "refused":
            await silent.__aexit__(None, None, None)
        transfers, outcomes = [Upload(b"x", PutTarget(silent.url(f"/{n}"))) for n in range(5)], list[Outcome]()
        async with Engine(config(concurrency=16, outage_seconds=3600, retry=POLICIES["attempts"])) as engine:
            async with asyncio.timeout(50):
                report = await engine.collect(transfers, on_outcome=outcomes.append)
    assert {type(failure.error) for failure in report.failures} == {ConnectionFailed}
    assert [outcome.attempts for outcome in outcomes if not outcome.ok] == [6] * 5


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("kind", ["small", "stream"])
async def test_a_server_that_never_answered_is_not_waited_for(kind: str, policy: str) -> None:
    """Attempts are used up, all of them: there is nobody to be spared. The rest of an endless feed is not tried."""
    async with HttpServer() as gone:
        pass
    outcomes = list[Outcome]()
    source = pieces if kind == "stream" else lambda: b"x" * 100
    feed = (
        Upload(source(), PutTarget(gone.url(f"/{number}")), size_bytes=100)  # type: ignore[arg-type]
        for number in range(1_000_000)
    )
    async with Engine(config(concurrency=16, outage_seconds=3600, retry=POLICIES[policy])) as engine:
        with pytest.raises(CircuitOpen, match=r"never answered \(no connection to .*\); is that its name"):
            async with asyncio.timeout(50):
                await engine.collect(feed, on_outcome=outcomes.append)
    assert len(outcomes) < 10_000
    given_up = [outcome for outcome in outcomes if isinstance(outcome.error, ConnectionFailed)]
    assert len(given_up) >= 32
    assert {outcome.attempts for outcome in given_up} == {POLICIES[policy].max_attempts}


async def test_one_name_that_is_wrong_is_in_the_way_of_nothing(server: HttpServer) -> None:
    async with HttpServer() as gone:
        pass
    transfers = [Upload(b"x", PutTarget((gone, server)[n % 2].url(f"/{n}"))) for n in range(COUNT)]
    async with Engine(config(concurrency=16, outage_seconds=3600, retry=POLICIES["attempts"])) as engine:
        async with asyncio.timeout(50):
            report = await engine.collect(transfers)
    assert (report.done, report.failed, report.is_complete) == (COUNT // 2, COUNT // 2, True)


class Picky(HttpServer):
    """Refuses some objects, whatever is done."""

    async def answer(self, connection: Connection, request: Received) -> None:
        if "/never" in request.path:
            await connection.reply(503)
        else:
            await super().answer(connection, request)


@pytest.mark.parametrize("name", ["small", "stream"])
async def test_four_objects_that_are_always_refused_are_no_outage(name: str) -> None:
    """They are the last ones of a run, nothing goes well beside them: each fails with its own error."""
    source = pieces if name == "stream" else lambda: b"x" * 100
    policy = RetryPolicy(max_attempts=12, wait_initial_seconds=0.01, wait_max_seconds=0.05, budget_least=100_000)
    async with Picky() as server, Engine(config(concurrency=16, outage_seconds=3600, retry=policy)) as engine:
        outcomes = list[Outcome]()
        paths = [f"/{number}" for number in range(50)] + [f"/never/{number}" for number in range(4)]
        feed = [
            Upload(source(), PutTarget(server.url(path)), size_bytes=100)  # type: ignore[arg-type]
            for path in paths
        ]
        async with asyncio.timeout(50):
            report = await engine.collect(feed, on_outcome=outcomes.append)
    assert (report.done, report.failed, report.is_complete) == (50, 4, True)
    assert {type(failure.error) for failure in report.failures} == {ServerError}
    assert [outcome.attempts for outcome in outcomes if not outcome.ok] == [12] * 4


class Endless:
    """Gives uploads for ever, and counts how many were taken."""

    def __init__(self, *servers: HttpServer) -> None:
        self._servers = servers
        self.taken = 0

    def __iter__(self) -> Iterator[Transfer]:
        while True:
            self.taken += 1
            server = self._servers[self.taken % len(self._servers)]
            yield Upload(b"x", PutTarget(server.url(f"/{self.taken}")))


@pytest.mark.parametrize("outage", [0.5, 0])
async def test_a_server_that_stays_out_ends_the_run_once(flaky: Flaky, outage: float) -> None:
    """Of an endless feed no more is taken than may be pending; one typed error says why."""
    flaky.out_after = 20
    feed, outcomes = Endless(flaky), list[Outcome]()
    async with Engine(config(outage_seconds=outage, max_pending=400, concurrency=16)) as engine:
        run = engine.run(feed, on_outcome=outcomes.append)
        with pytest.raises(CircuitOpen, match=f"http://127.0.0.1:{flaky.port}: out for too long"):
            async with asyncio.timeout(60), run as given:
                async for _ in given:
                    pass
        assert not run.is_complete
    assert feed.taken <= 1000
    assert flaky.refused <= FEW
    failed = [outcome for outcome in outcomes if not outcome.ok]
    assert len(outcomes) - len(failed) == 20
    assert failed
    # Without waiting, those that found it out have failed of what they were told.
    assert {type(outcome.error) for outcome in failed} - {ServerError if not outage else None} == {CircuitOpen}


async def test_who_comes_later_finds_out_anew(flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that begins when the server works again, a while after one was ended, is not held against it."""
    monkeypatch.setattr(origins, "_FORGOTTEN_SECONDS", 0.2)
    flaky.is_out = True
    async with Engine(config(outage_seconds=0.2, concurrency=16)) as engine:
        with pytest.raises(CircuitOpen):
            await engine.collect(Endless(flaky))
        flaky.is_out = False
        await asyncio.sleep(0.3)
        report = await engine.collect(Upload(b"x", PutTarget(flaky.url(f"/{n}"))) for n in range(100))
        assert (report.done, report.failed) == (100, 0)


@pytest.mark.parametrize("kind", ["small", "stream", "large"])
async def test_objects_of_other_servers_go_on(flaky: Flaky, server: HttpServer, tmp_path: Path, kind: str) -> None:
    """One server is out: what is meant for it is among the first of the feed, and in the way of nothing."""
    flaky.is_out = True
    (tmp_path / "large").write_bytes(bytes(2 * MiB))

    def upload(where: HttpServer, number: int) -> Upload:
        if kind == "small":
            return Upload(b"x", PutTarget(where.url(f"/{number}")))
        if kind == "stream":
            return Upload(pieces(), PutTarget(where.url(f"/{number}")), size_bytes=100)
        return Upload(tmp_path / "large", multipart_target(where, 2, upload_id=f"U{number}"))

    count = 30 if kind == "large" else COUNT
    transfers = [upload(where, number) for where in (flaky, server) for number in range(count)]
    others: set[Transfer] = set(map(id, transfers[count:]))  # type: ignore[arg-type]
    came, all_came = 0, asyncio.Event()

    def on_outcome(outcome: Outcome) -> None:
        nonlocal came
        if id(outcome.transfer) in others:
            assert flaky.is_out
            came += 1
            if came == count:
                all_came.set()

    async with Engine(config(outage_seconds=60, concurrency=16, large_objects=8, retry=POLICIES["attempts"])) as engine:
        run = asyncio.create_task(engine.collect(transfers, on_outcome=on_outcome))
        async with asyncio.timeout(50):
            await all_came.wait()
            flaky.is_out = False
            report = await run
    assert (report.done, report.failed) == (2 * count, 0)
    assert flaky.refused <= FEW


async def test_other_servers_go_on_when_one_is_given_up(flaky: Flaky, server: HttpServer) -> None:
    """The run does not end while something goes well; what the other is for fails."""
    flaky.is_out = True
    count, outcomes = 3000, list[Outcome]()
    server.delay = 0.005
    transfers = [
        Upload(b"x", PutTarget((flaky if number % 100 == 0 else server).url(f"/{number}"))) for number in range(count)
    ]
    async with Engine(config(outage_seconds=0.3, concurrency=16, retry=POLICIES["attempts"])) as engine:
        report = await engine.collect(transfers, on_outcome=outcomes.append)
    assert (report.done, report.failed, report.is_complete) == (count - 30, 30, True)
    assert flaky.refused <= FEW


async def test_what_waits_at_the_deadline_has_failed_by_it(flaky: Flaky) -> None:
    flaky.is_out = True
    transfers = [Upload(b"x", PutTarget(flaky.url(f"/{number}"))) for number in range(100)]
    async with Engine(config(outage_seconds=60, concurrency=16, deadline_seconds=1.0)) as engine:
        report = await engine.collect(transfers)
        assert engine.limits.slots.free == 16
    assert report.failures_by_code == {"deadline": 100}


async def test_what_waits_when_the_run_is_left_or_drained_leaves_nothing(flaky: Flaky) -> None:
    """Draining does not wait for a server that is out; leaving leaves no timer and nobody who listens."""
    flaky.is_out = True
    transfers = [Upload(b"x", PutTarget(flaky.url(f"/{number}"))) for number in range(100)]
    async with Engine(config(outage_seconds=60, concurrency=16)) as engine:
        known = engine.limits.origins
        async with engine.run(transfers):
            while not known.is_out(flaky.url("/")):
                await asyncio.sleep(0.01)
        assert (known.has_changed, known.has_begun_waiting) == ([], [])
        assert known.waiting_in("small") == 0
        run = asyncio.create_task(engine.collect(Endless(flaky)))
        await asyncio.sleep(0.1)
        engine.drain()
        async with asyncio.timeout(20):
            report = await run
    assert not report.is_complete
    assert set(report.failures_by_code) <= {"circuit_open"}


async def test_what_is_put_aside_is_told_as_waiting_for_the_server(flaky: Flaky) -> None:
    flaky.out_after = 5
    async with Engine(config(outage_seconds=60, concurrency=16)) as engine:
        back = asyncio.create_task(back_in(flaky, 0.7))
        report = await engine.collect(small for small in Uploads(flaky, 200))
        await back
    assert report.bottleneck is not None
    assert report.bottleneck.reason == "rate"


class Uploads:
    def __init__(self, server: HttpServer, count: int) -> None:
        self._server, self._count = server, count

    def __iter__(self) -> Iterator[Transfer]:
        for number in range(self._count):
            yield Upload(b"x", PutTarget(self._server.url(f"/{number}")))


def test_where_a_transfer_goes_first() -> None:
    url = "http://host/a"
    assert url_of(Upload(b"", PutTarget(url))) == url
    assert url_of(Download(UrlOrigin(url), None)) == url
