"""Draining: what is under way is finished, nothing new is begun, and the report says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from asyncsdk.engine import Download, Drained, Engine, Event, Outcome, PutTarget, Report, Transfer, Upload, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.errors import LeftUndone, SourceNotFound
from tests.support.feeds import RecordingFeed, multipart_target
from tests.support.http_server import Action, Connection, HttpServer, Received, answer
from tests.support.transports import InstantTransport
from tests.unit.engine.conftest import config


def held(begun: asyncio.Semaphore, may_answer: asyncio.Event) -> Action:
    """Read the request, say so, and answer when it is time."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        begun.release()
        await may_answer.wait()
        return False

    return action


def refusal_held(waiting: Held) -> Action:
    """As `held`, but the answer is a refusal."""
    hold = held(waiting.begun, waiting.may_answer)

    async def action(connection: Connection, request: Received) -> bool:
        await hold(connection, request)
        await connection.reply(503)
        return True

    return action


class Held:
    """A server that holds answers back, and *count* uploads to it."""

    def __init__(self, server: HttpServer, tmp_path: Path, count: int) -> None:
        self.begun, self.may_answer = asyncio.Semaphore(0), asyncio.Event()
        (tmp_path / "file").write_bytes(b"x" * 100)
        for number in range(count):
            server.script(f"/{number}", held(self.begun, self.may_answer))
        self.transfers = [Upload(tmp_path / "file", PutTarget(server.url(f"/{number}"))) for number in range(count)]

    async def wait(self, count: int) -> None:
        for _ in range(count):
            await self.begun.acquire()


async def test_what_is_under_way_is_finished_and_nothing_else(server: HttpServer, tmp_path: Path) -> None:
    """Each of those has its outcome; of the others there is none, and the feed is not asked again."""
    waiting = Held(server, tmp_path, 500)
    feed = RecordingFeed(waiting.transfers)
    async with Engine(config(concurrency=3)) as engine:
        task = asyncio.create_task(engine.collect(feed))
        await waiting.wait(3)
        taken = feed.taken
        assert 3 < taken < 500
        assert engine.drain() is True
        assert engine.drain() is True
        waiting.may_answer.set()
        report = await task
        assert (report.done, report.failed, report.is_complete) == (3, 0, False)
        assert str(report).endswith("not complete")
        assert len([outcome for batch in feed.settled for outcome in batch]) == 3
        assert feed.taken == taken
        assert len(server.objects) == 3
        assert engine.drain() is False
        later = await engine.collect(waiting.transfers)  # nothing new, ever again
        assert (later.objects, later.is_complete) == (0, False)


async def test_a_run_that_has_everything_under_way_is_complete(server: HttpServer, tmp_path: Path) -> None:
    """Draining it changes nothing."""
    waiting = Held(server, tmp_path, 3)
    async with Engine(config()) as engine:
        task = asyncio.create_task(engine.collect(waiting.transfers))
        await waiting.wait(3)
        engine.drain()
        waiting.may_answer.set()
        report = await task
    assert (report.done, report.is_complete) == (3, True)


async def test_what_is_tried_again_counts_as_under_way(server: HttpServer, tmp_path: Path) -> None:
    """A request that fails after the run was drained is repeated as it would have been."""
    waiting = Held(server, tmp_path, 0)
    server.script("/o", refusal_held(waiting), answer(503))
    upload = Upload(tmp_path / "file", PutTarget(server.url("/o")))
    async with Engine(config()) as engine, engine.run([upload]) as outcomes:
        await waiting.wait(1)
        outcomes.drain()
        waiting.may_answer.set()
        (outcome,) = [outcome async for outcome in outcomes]
    assert (outcome.status, outcome.attempts) == ("done", 3)


async def test_large_objects_are_finished_and_those_behind_them_are_not_begun(
    server: HttpServer, tmp_path: Path
) -> None:
    """One upload in parts and one download in ranges are under way; four more of each wait."""
    begun, may_answer = asyncio.Semaphore(0), asyncio.Event()
    (tmp_path / "big").write_bytes(bytes(3 * MiB))
    server.objects["/got"] = bytes(3 * MiB)
    server.script("/0", held(begun, may_answer))
    server.script("/got", held(begun, may_answer))
    transfers: list[Transfer] = []
    for number in range(5):
        target = multipart_target(server, 3, path=f"/{number}", upload_id=f"U{number}")
        origin = UrlOrigin(server.url("/got"), size_bytes=3 * MiB)
        transfers += [Upload(tmp_path / "big", target), Download(origin, tmp_path / f"got{number}")]
    async with Engine(config(large_objects=2)) as engine:
        task = asyncio.create_task(engine.collect(transfers))
        await begun.acquire()
        await begun.acquire()
        engine.drain()
        may_answer.set()
        report = await task
    assert (report.done, report.failed, report.is_complete) == (2, 0, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big", "got0"]
    assert sorted(server.objects) == ["/0", "/got"]


async def test_worker_processes_finish_what_they_have(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was given to one of them is under way; what waits for one is dropped."""
    monkeypatch.setattr("asyncsdk.engine.crew.crew.START_SECONDS", 0.0)
    waiting = Held(server, tmp_path, 500)
    seen: list[Event] = []
    async with Engine(config(processes=2)) as engine:
        task = asyncio.create_task(engine.collect(waiting.transfers, on_event=seen.append))
        await waiting.wait(4)
        engine.drain()
        waiting.may_answer.set()
        report = await task
    (drained,) = [event for event in seen if isinstance(event, Drained)]
    assert 4 <= drained.active == report.done == len(server.objects) < 500
    assert (report.failed, report.is_complete) == (0, False)
    assert drained.dropped > 0


class Endless(RecordingFeed):
    """Waits for ever when it is asked again."""

    async def take(self, want: int) -> Sequence[Transfer]:
        found = await super().take(want)
        if not found:
            await asyncio.Event().wait()
        return found


async def test_a_feed_that_waits_is_left(server: HttpServer, tmp_path: Path) -> None:
    """Whoever drains does not wait for a pipe that nobody writes to."""
    (tmp_path / "file").write_bytes(b"x")
    feed = Endless([Upload(tmp_path / "file", PutTarget(server.url("/o")))])
    async with Engine(config()) as engine, engine.run(feed) as outcomes:
        assert (await anext(outcomes)).ok
        outcomes.drain()
        assert [outcome async for outcome in outcomes] == []
        assert not outcomes.is_complete


async def test_draining_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """Whatever was under way: what has an outcome is settled once, and nothing else happened."""
    (tmp_path / "file").write_bytes(b"x")

    def transfers() -> Iterator[Upload]:
        for number in range(300):
            yield Upload(tmp_path / "file", PutTarget("http://h/o"), key=number)

    for moment in range(0, 60, 3):
        feed = RecordingFeed(transfers())
        transport = InstantTransport()
        async with Engine(config(concurrency=2, settle_size=7), transport=transport) as engine:
            async with engine.run(feed) as outcomes:
                keys = []
                async for outcome in outcomes:
                    keys.append(outcome.transfer.key)
                    if len(keys) > moment:
                        outcomes.drain()
            settled = [outcome.transfer.key for batch in feed.settled for outcome in batch]
            assert sorted(settled) == sorted(keys)
            assert len(set(keys)) == len(keys) == transport.requests
            assert outcomes.is_complete is (len(keys) == 300)


@pytest.mark.parametrize("is_early", [True, False])
async def test_errors_and_leaving_early_win_over_draining(server: HttpServer, tmp_path: Path, is_early: bool) -> None:
    """A block that is left while it drains cancels what is under way, as ever."""
    waiting = Held(server, tmp_path, 5)
    seen: list[Outcome] = []
    async with Engine(config()) as engine:
        with pytest.raises(KeyError):
            async with engine.run(waiting.transfers) as outcomes:
                await waiting.wait(4)
                outcomes.drain()
                if not is_early:
                    waiting.may_answer.set()
                    seen += [outcome async for outcome in outcomes]
                raise KeyError
    assert len(seen) == (0 if is_early else 4)


async def test_a_drained_call_is_no_success(server: HttpServer, tmp_path: Path) -> None:
    """An upload that moved nothing raises, and so does one that moved a part of it; what is whole does not."""
    waiting = Held(server, tmp_path, 5)
    async with Engine(config(concurrency=2)) as engine:
        task = asyncio.create_task(engine.collect(waiting.transfers))
        await waiting.wait(2)
        engine.drain()
        waiting.may_answer.set()
        part = await task
        nothing = await engine.collect(waiting.transfers)
    for report, done in ((part, 2), (nothing, 0)):
        assert (report.done, report.failed, report.ok) == (done, 0, False)
        with pytest.raises(ExceptionGroup) as caught:
            report.raise_for_failures()
        assert [type(error) for error in caught.value.exceptions] == [LeftUndone]
        assert caught.value.exceptions[0].done == done
        assert "drained" in str(caught.value)


def test_what_was_left_undone_stands_behind_the_failures() -> None:
    report = Report(is_complete=False)
    report.add_failure("a", SourceNotFound("gone"))
    with pytest.raises(ExceptionGroup, match=r"1 of 1 failed: 1 source_not_found; drained") as caught:
        report.raise_for_failures()
    assert [type(error) for error in caught.value.exceptions] == [SourceNotFound, LeftUndone]
