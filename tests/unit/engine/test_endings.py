"""Runs that end before their feed does, because going on would only make failures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from asyncsdk.engine import Engine, Outcome, PutTarget, Refused, Report, Transfer, TransferConfig, Upload
from asyncsdk.errors import BadRequest, ConfigError, NotFound, TooManyFailures
from tests.support.feeds import RecordingFeed
from tests.support.http_server import HttpServer, answer
from tests.unit.engine.conftest import config

SECRET = "Signature=secret"


class Endless:
    """Gives uploads for ever, and counts how many were taken."""

    def __init__(self, server: HttpServer, source: bytes | Path = b"x") -> None:
        self._server = server
        self._source = source
        self.taken = 0

    def __iter__(self) -> Iterator[Transfer]:
        while True:
            self.taken += 1
            yield Upload(self._source, PutTarget(self._server.url(f"/{self.taken}?{SECRET}")))


@pytest.mark.parametrize("lane", ["express", "workers"])
async def test_so_many_failures_end_the_run(server: HttpServer, tmp_path: Path, lane: str) -> None:
    """What is under way is finished; one error says how many failed, and what the first one was told."""
    server.script("*", *[answer(403)] * 10_000)
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    feed, outcomes = Endless(server, b"x" if lane == "express" else tmp_path / "file"), list[Outcome]()
    async with Engine(config(max_failures=10, concurrency=4)) as engine:
        run = engine.run(feed, on_outcome=outcomes.append)
        with pytest.raises(TooManyFailures, match=r"10 objects failed.*403") as caught:
            async with asyncio.timeout(30), run as given:
                async for _ in given:
                    pass
        assert not run.is_complete
        assert engine.limits.slots.free == 4
    assert 10 <= len(outcomes) <= 60
    assert feed.taken <= 400
    assert "secret" not in str(caught.value)
    assert outcomes[0].name in str(caught.value)
    assert len(server.of("PUT")) <= 60


async def test_fewer_failures_end_nothing(server: HttpServer) -> None:
    for number in range(9):
        server.script(f"/{number}", answer(404))
    async with Engine(config(max_failures=10)) as engine:
        report = await engine.collect(Upload(b"x", PutTarget(server.url(f"/{n}"))) for n in range(300))
    assert (report.done, report.failed, report.is_complete) == (291, 9, True)


async def test_the_last_failure_of_a_feed_that_was_taken_ends_nothing(server: HttpServer) -> None:
    """All of it has an outcome: the report says what failed, and no error that something was left undone."""
    server.script("*", *[answer(404)] * 10)
    async with Engine(config(max_failures=10)) as engine:
        report = await engine.collect(Upload(b"x", PutTarget(server.url(f"/{n}"))) for n in range(10))
    assert (report.failed, report.is_complete) == (10, True)


async def test_what_the_feed_refuses_counts(server: HttpServer) -> None:
    """Of one batch too: those behind the last one that counts are left alone."""
    outcomes: list[Outcome] = []
    refused = [Refused(str(number), BadRequest("no such row", status=400)) for number in range(50)]
    tail = [Upload(b"x", PutTarget(server.url(f"/{number}"))) for number in range(50)]
    async with Engine(config(max_failures=5)) as engine:
        with pytest.raises(TooManyFailures, match=r"5 objects failed.*0: no such row"):
            await engine.collect([*refused, *tail], on_outcome=outcomes.append)
    assert server.of("PUT") == []


class Uncommitted(RecordingFeed):
    """Everything arrives, and nothing is committed."""

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            outcome.status, outcome.error = "failed", NotFound("the dataset is gone", status=404)
        return outcomes


async def test_what_cannot_be_committed_counts(server: HttpServer) -> None:
    feed = Uncommitted(Upload(b"x", PutTarget(server.url(f"/{number}"))) for number in range(20_000))
    async with Engine(config(max_failures=5, settle_size=2)) as engine:
        with pytest.raises(TooManyFailures, match="the dataset is gone"):
            await engine.collect(feed)
    assert len(server.of("PUT")) < 10_000


async def test_events_and_the_report_say_that_it_was_ended(server: HttpServer) -> None:
    from asyncsdk.engine import Event, RunEnded

    server.script("*", *[answer(403)] * 1000)
    events, report = list[Event](), Report()
    async with Engine(config(max_failures=3)) as engine:
        with pytest.raises(TooManyFailures):
            await engine.collect(Endless(server), on_event=events.append, on_outcome=report.add)
    (ended,) = [event for event in events if isinstance(event, RunEnded)]
    assert (ended.is_complete, ended.code) == (False, "too_many_failures")
    assert report.failed >= 3


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "5"])
def test_wrong_numbers_are_refused(wrong: object) -> None:
    with pytest.raises(ConfigError):
        TransferConfig(max_failures=wrong)  # type: ignore[arg-type]
