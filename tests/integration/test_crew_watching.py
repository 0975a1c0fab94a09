"""What is seen of a run whose transfers are moved by worker processes: retries, waits, what limits it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from asyncsdk.engine import Engine, PutTarget, Transfer, Upload
from asyncsdk.engine.events import Event, ObjectFinished, Retried
from asyncsdk.engine.run import Run
from asyncsdk.engine.waits import WaitReason
from tests.integration.test_lanes_agree import CONFIG
from tests.support.crew import crew_of, engine_with_workers
from tests.support.feeds import RecordingFeed
from tests.support.http_server import HttpServer, answer

CREW = replace(CONFIG, processes=2, concurrency=6, retry=replace(CONFIG.retry, budget_least=1000))
COUNT = 120
pytestmark = pytest.mark.timeout(60)


def uploads(server: HttpServer, count: int = COUNT) -> list[Transfer]:
    """Return small uploads."""
    return [Upload(b"x", PutTarget(server.url(f"/{number}")), key=number, name=f"{number}") for number in range(count)]


async def finish(run: Run) -> None:
    """Take all outcomes, of which none failed."""
    async with run as outcomes:
        assert all([outcome.ok async for outcome in outcomes])


def batches_of(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the size of every batch of retries that workers tell."""
    crew = crew_of(engine)
    sizes: list[int] = []
    tell = crew._tell

    def counted(shift: Any, member: Any, kind: str, rest: list[Any]) -> None:
        if kind == "retried":
            sizes.append(len(rest[1]))
        tell(shift, member, kind, rest)

    monkeypatch.setattr(crew, "_tell", counted)
    return sizes


@pytest.mark.parametrize("listens", [True, False])
async def test_every_retry_is_told_once_and_in_batches(monkeypatch: pytest.MonkeyPatch, listens: bool) -> None:
    """The events are those of one process: each retry, before what became of its object. Who does not listen pays
    nothing."""
    events: list[Event] = []
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        for number in range(COUNT):
            server.script(f"/{number}", answer(503, b"later"), answer(500, b"again"))
        sizes = batches_of(engine, monkeypatch)
        await finish(engine.run(uploads(server), on_event=events.append if listens else None))
    if not listens:
        assert sizes == []
        return
    order = [(event.name, type(event)) for event in events if isinstance(event, (Retried, ObjectFinished))]
    assert len([kind for _, kind in order if kind is Retried]) == 2 * COUNT
    for number in range(COUNT):
        assert [kind for name, kind in order if name == f"{number}"] == [Retried, Retried, ObjectFinished]
    assert {event.code for event in events if isinstance(event, Retried)} == {"server_error"}
    assert sum(sizes) == 2 * COUNT
    assert len(sizes) <= COUNT


async def test_what_workers_wait_for_is_counted() -> None:
    """Seconds of all places together, as one process would count them; what they wait for limits the run."""
    found = {}
    for processes in (1, 2):
        async with HttpServer() as server, Engine(replace(CREW, processes=processes)) as engine:
            if processes > 1:
                engine._open()
                crew_of(engine).start()
                while len(crew_of(engine).pids) < processes:
                    await asyncio.sleep(0.01)
            server.delay = 0.1
            run = engine.run(uploads(server))
            await finish(run)
            if processes > 1:
                assert run._shift is not None
                assert run._shift._last == COUNT
        waits = run.watch.waits
        assert waits.bottleneck is not None
        assert waits.bottleneck.reason == "slot"  # with more requests at once it would have been over sooner
        found[processes] = waits.seconds[WaitReason.SLOT] + waits.seconds.get(WaitReason.REPLY, 0.0)
    # COUNT replies that take 0.1 s each, whoever waits for them.
    assert found[1] / 3 < found[2] < 3 * found[1]
    assert found[2] > 0.1 * COUNT / 3


class SlowFeed(RecordingFeed):
    """Gives two at a time, and takes its time for that."""

    async def take(self, want: int) -> Sequence[Transfer]:
        await asyncio.sleep(0.03)
        return list(islice(self._transfers, 2))


async def test_a_feed_that_is_slow_limits_workers_too() -> None:
    """Workers with nothing to do wait for it."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        run = engine.run(SlowFeed(uploads(server)))
        await finish(run)
        assert run.watch.waits.bottleneck is not None
        assert run.watch.waits.bottleneck.reason == "feed"
