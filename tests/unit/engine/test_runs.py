"""Runs: laziness, order of events, exceptions, early exit, lanes."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from asyncsdk.engine import (
    Download,
    Engine,
    Outcome,
    Progress,
    PutTarget,
    Refused,
    Skipped,
    Transfer,
    Upload,
    UrlOrigin,
)
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB
from asyncsdk.errors import BadRequest, ConfigError, InvalidName, PermissionDenied
from tests.support.feeds import RecordingFeed, multipart_target
from tests.support.http_server import HttpServer, answer, stall
from tests.unit.engine.conftest import config


def uploads(server: HttpServer, count: int, size: int = 10) -> Iterator[Upload]:
    return (Upload(bytes(size), PutTarget(server.url(f"/{i}")), key=i) for i in range(count))


def endless(server: HttpServer) -> Iterator[Upload]:
    return (Upload(b"x", PutTarget(server.url("/same"))) for _ in itertools.count())


async def test_every_transfer_has_one_outcome(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    server.objects["/d"] = b"down"
    transfers: list[Transfer] = [
        *uploads(server, 300),
        Upload(tmp_path / "missing", PutTarget(server.url("/m")), key="missing"),
        Download(server.url("/d"), key="d"),
        Download(server.url("/none"), key="none"),
        Upload(os.urandom(3 * MiB), multipart_target(server, 3), key="multipart"),
        Skipped("same", 7, key="skipped"),
        Refused("bad", InvalidName("bad", "is bad"), key="refused"),
    ]
    seen: dict[object, Outcome] = {}
    async with engine.run(transfers) as outcomes:
        async for outcome in outcomes:
            assert outcome.transfer.key not in seen
            seen[outcome.transfer.key] = outcome
    assert len(seen) == len(transfers)
    assert {key for key, outcome in seen.items() if not outcome.ok} == {"missing", "none", "refused"}
    assert (seen["skipped"].status, seen["skipped"].size_bytes) == ("skipped", 7)


async def test_asynchronous_iterables_and_empty_ones_are_run(engine: Engine, server: HttpServer) -> None:
    async def transfers() -> AsyncIterator[Upload]:
        for upload in uploads(server, 5):
            yield upload

    assert (await engine.collect(transfers())).done == 5
    assert (await engine.collect([])).objects == 0
    with pytest.raises(ConfigError):
        await engine.collect(5)  # type: ignore[arg-type]


async def test_outcomes_come_as_they_are_done(engine: Engine, server: HttpServer) -> None:
    started = asyncio.Event()
    server.script("/slow", stall(started))
    transfers = [Upload(b"", PutTarget(server.url("/slow"))), *uploads(server, 3)]
    async with engine.run(transfers) as outcomes:
        first = [await anext(outcomes) for _ in range(3)]
    assert sorted(outcome.transfer.key for outcome in first) == [0, 1, 2]


async def test_an_endless_feed_is_pulled_lazily_and_left_early(server: HttpServer) -> None:
    feed = RecordingFeed(endless(server))
    async with Engine(config(max_pending=100)) as engine, engine.run(feed) as outcomes:
        async for _ in outcomes:
            await asyncio.sleep(0.05)
            break
        assert feed.taken <= 101
        assert max(feed.wants) <= 100
    assert len(server.requests) <= 100


async def test_a_slow_consumer_slows_the_feed_down(server: HttpServer) -> None:
    feed = RecordingFeed(endless(server))
    handed = 0
    async with Engine(config(max_pending=20, settle_size=5)) as engine, engine.run(feed) as outcomes:
        async for _ in outcomes:
            handed += 1
            if handed % 10 == 0:
                await asyncio.sleep(0.02)
            assert feed.taken - handed <= 20
            if handed == 100:
                break


async def test_the_feed_is_asked_for_64_at_first_and_never_more_than_1000(server: HttpServer) -> None:
    feed = RecordingFeed(uploads(server, 600))
    async with Engine(config()) as engine:
        await engine.collect(feed)
    assert feed.wants[0] == 64
    assert all(64 <= want <= 1000 for want in feed.wants)


@pytest.mark.parametrize("where", ["block", "feed", "iterable", "settle", "on_outcome", "on_progress"])
async def test_exceptions_come_out_unchanged(engine: Engine, server: HttpServer, where: str) -> None:
    mine = KeyError("mine")

    def broken(source: Iterator[Upload]) -> Iterator[Upload]:
        yield next(source)
        raise mine

    def raising(*_: object) -> Sequence[Outcome]:
        raise mine

    feed: object = endless(server)
    if where == "iterable":
        feed = broken(endless(server))
    elif where == "feed":
        feed = RecordingFeed(broken(endless(server)))
    elif where == "settle":
        feed = RecordingFeed(endless(server), on_settle=raising)
    with pytest.raises(KeyError) as caught:
        async with engine.run(
            feed,  # type: ignore[arg-type]
            on_outcome=raising if where == "on_outcome" else None,  # type: ignore[arg-type]
            on_progress=raising if where == "on_progress" else None,  # type: ignore[arg-type]
        ) as outcomes:
            async for _ in outcomes:
                if where == "block":
                    raise mine
    assert caught.value is mine


async def test_a_failure_nobody_iterated_to_is_raised_at_the_end(engine: Engine, server: HttpServer) -> None:
    def broken() -> Iterator[Upload]:
        raise KeyError("mine")
        yield

    with pytest.raises(KeyError):
        async with engine.run(broken()):
            await asyncio.sleep(0.05)


async def test_a_return_from_the_block_stops_requests(engine: Engine, server: HttpServer) -> None:
    started = asyncio.Event()
    server.script("/same", *[stall(started)] * 10)

    async def early() -> str:
        async with engine.run(endless(server)):
            await started.wait()
            return "left"

    assert await early() == "left"
    count = len(server.requests)
    await asyncio.sleep(0.05)
    assert len(server.requests) == count <= 5


@pytest.mark.parametrize("how", ["task", "scope", "timeout"])
async def test_cancellation_is_passed_on(engine: Engine, server: HttpServer, how: str) -> None:
    started = asyncio.Event()
    server.script("/same", *[stall(started)] * 10)
    reached_end = False

    async def run() -> None:
        nonlocal reached_end
        async with engine.run(endless(server)) as outcomes:
            async for _ in outcomes:
                pass
        reached_end = True

    if how == "task":
        task = asyncio.create_task(run())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif how == "timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await run()
    else:
        with anyio.move_on_after(0.05) as scope:
            await run()
        assert scope.cancelled_caught
    assert not reached_end


async def test_outcomes_are_settled_then_told_then_given(engine: Engine, server: HttpServer) -> None:
    log: list[str] = []

    def settle(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        log.append("settle")
        return [replace(outcome, reply="committed") for outcome in outcomes]

    def told(outcome: Outcome) -> None:
        assert outcome.reply == "committed"
        log.append("told")

    async with engine.run(RecordingFeed(uploads(server, 1), on_settle=settle), on_outcome=told) as outcomes:
        async for outcome in outcomes:
            assert outcome.reply == "committed"
            log.append("given")
    assert log == ["settle", "told", "given"]


async def test_settling_may_turn_success_into_failure(engine: Engine, server: HttpServer) -> None:
    refusal = BadRequest("no")
    feed = RecordingFeed(
        uploads(server, 3), on_settle=lambda outcomes: [replace(o, status="failed", error=refusal) for o in outcomes]
    )
    seen: list[Progress] = []
    report = await engine.collect(feed, on_progress=seen.append)
    assert (report.failed, report.done) == (3, 0)
    assert seen[-1].failed == 3


async def test_failed_and_skipped_outcomes_are_settled_too(engine: Engine, server: HttpServer) -> None:
    server.script("/0", answer(403))
    feed = RecordingFeed([*uploads(server, 1), Skipped("s"), Refused("r", InvalidName("r", "is bad"))])
    await engine.collect(feed)
    assert sorted(o.status for batch in feed.settled for o in batch) == ["failed", "failed", "skipped"]


async def test_batches_are_no_larger_than_asked_and_none_is_forgotten(server: HttpServer) -> None:
    feed = RecordingFeed(uploads(server, 103))
    async with Engine(config(settle_size=10, settle_seconds=60)) as engine:
        report = await engine.collect(feed)
    assert report.done == 103
    assert max(map(len, feed.settled)) == 10
    assert sum(map(len, feed.settled)) == 103
    assert len(feed.settled) < 40


async def test_what_is_done_is_settled_though_the_run_is_cancelled(server: HttpServer) -> None:
    started = asyncio.Event()
    server.script("/slow", stall(started))
    feed = RecordingFeed([*uploads(server, 5), Upload(b"", PutTarget(server.url("/slow")))])
    told: list[Outcome] = []
    async with Engine(config(settle_size=100, settle_seconds=60, concurrency=1)) as engine:

        async def run() -> None:
            async with engine.run(feed, on_outcome=told.append) as outcomes:
                async for _ in outcomes:
                    pass

        task = asyncio.create_task(run())
        await started.wait()
        assert feed.settled == []
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [outcome.transfer.key for outcome in feed.settled[0]] == [0, 1, 2, 3, 4]
    assert len(told) == 5


async def test_settling_that_hangs_is_given_up_when_cancelled(server: HttpServer) -> None:
    class Hanging(RecordingFeed):
        async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
            await asyncio.Event().wait()
            return outcomes

    async with Engine(config(cleanup_seconds=0.05)) as engine:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await engine.collect(Hanging(uploads(server, 3)))


async def test_progress_ends_with_everything_counted(engine: Engine, server: HttpServer) -> None:
    seen: list[Progress] = []
    server.script("/0", answer(503))
    server.script("/1", answer(403))
    await engine.collect(uploads(server, 20, 1000), on_progress=seen.append, objects_total=20, bytes_total=20_000)
    assert [event.is_final for event in seen].count(True) == 1
    final = seen[-1]
    assert final.is_final
    assert (final.done, final.failed, final.active, final.bytes_done) == (19, 1, 0, 19_000)
    assert (final.objects_total, final.bytes_total) == (20, 20_000)


async def test_progress_goes_back_by_what_was_lost(engine: Engine, server: HttpServer) -> None:
    seen: list[Progress] = []
    server.script("/m", *[answer(503)] * 2)
    await engine.collect([Upload(bytes(3 * MiB), multipart_target(server, 3))], on_progress=seen.append)
    assert seen[-1].bytes_done == 3 * MiB


async def test_one_slot_serves_both_lanes_in_turn(server: HttpServer) -> None:
    """Small files do not wait for the end of a large one, nor the other way round."""
    transfers: list[Transfer] = [
        Upload(bytes(30 * MiB), multipart_target(server, 30)),
        Upload(bytes(30 * MiB), multipart_target(server, 30, upload_id="U2", path="/n")),
        *uploads(server, 60),
    ]
    async with Engine(config(concurrency=1, large_objects=2)) as engine:
        (await engine.collect(transfers)).raise_for_failures()
    assert server.most_active == 1
    kinds = ["part" if "partNumber" in r.query else "small" for r in server.of("PUT")]
    # Not strictly in turn (`test_lanes.py` proves that for lanes that both wait): a part is summed before it asks for
    # the slot, and small files go on meanwhile. But neither lane has to see the end of the other.
    assert len(list(itertools.groupby(kinds))) >= 10
    assert kinds.index("small") < 20
    assert "part" in kinds[:20]


async def test_downloads_of_unknown_size_that_are_large_change_lanes(server: HttpServer, tmp_path: Path) -> None:
    data = os.urandom(4 * MiB)
    for i in range(6):
        server.objects[f"/{i}"] = data
    async with Engine(config(concurrency=1, large_objects=1)) as engine:
        report = await engine.collect([Download(server.url(f"/{i}"), tmp_path / f"{i}") for i in range(6)])
    report.raise_for_failures()
    assert all((tmp_path / f"{i}").read_bytes() == data for i in range(6))
    assert len(server.requests) == 24  # the first range is not fetched twice


async def test_what_waits_to_be_continued_is_removed_when_the_run_is_left(server: HttpServer, tmp_path: Path) -> None:
    started = asyncio.Event()
    for i in range(4):
        server.objects[f"/{i}"] = bytes(4 * MiB)

    async def later(connection: object, request: object) -> bool:
        if (request.header("range") or "").startswith("bytes=0-"):  # type: ignore[attr-defined]
            return False
        started.set()
        await asyncio.Event().wait()
        return True

    server.script("*", *[later] * 50)
    downloads = [Download(server.url(f"/{i}"), tmp_path / f"{i}") for i in range(4)]
    async with Engine(config(concurrency=2, large_objects=1)) as engine, engine.run(downloads):
        await started.wait()
        await asyncio.sleep(0.05)
        assert len(list(tmp_path.iterdir())) > 1
    assert list(tmp_path.iterdir()) == []


async def test_downloads_into_memory_wait_for_a_slow_consumer(server: HttpServer) -> None:
    limit = process_budget().limit_bytes
    server.objects["/o"] = bytes(MiB)
    try:
        async with Engine(config(memory_bytes=8 * MiB)) as engine:
            transfers = (Download(UrlOrigin(server.url("/o"), size_bytes=MiB)) for _ in range(40))
            async with engine.run(transfers) as outcomes:
                await asyncio.sleep(0.3)
                assert len(server.requests) < 10
                assert len([outcome async for outcome in outcomes]) == 40
    finally:
        process_budget().resize(limit)


async def test_a_run_is_entered_once_and_iterated_inside(engine: Engine, server: HttpServer) -> None:
    run = engine.run(uploads(server, 1))
    with pytest.raises(ConfigError):
        await anext(run)
    async with run:
        pass
    with pytest.raises(ConfigError):
        await run.__aenter__()


async def test_runs_of_one_engine_go_on_side_by_side(engine: Engine, server: HttpServer) -> None:
    reports = await asyncio.gather(*(engine.collect(uploads(server, 30)) for _ in range(4)))
    assert [report.done for report in reports] == [30] * 4


async def test_a_transfer_made_inside_the_block_does_not_deadlock(server: HttpServer) -> None:
    async with Engine(config(concurrency=1, max_pending=2)) as engine, engine.run(uploads(server, 10)) as outcomes:
        async for outcome in outcomes:
            await engine.upload(b"x", PutTarget(server.url(f"/again/{outcome.transfer.key}")))
    assert len(server.requests) == 20


async def test_failures_are_reported_by_kind(engine: Engine, server: HttpServer) -> None:
    server.script("/1", answer(403))
    report = await engine.collect(uploads(server, 3))
    assert dict(report.failures_by_code) == {"permission_denied": 1}
    with pytest.raises(ExceptionGroup) as caught:
        report.raise_for_failures()
    assert isinstance(caught.value.exceptions[0], PermissionDenied)
