"""Whoever waits for a job hears of what a worker of the same client does."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.entities.job_signals import JobSignals, signals_of
from asyncsdk.errors import JobCancelled
from asyncsdk.platforms.embedded import EmbeddedPlatform
from asyncsdk.protocol.base import Message
from asyncsdk.worker.runners import Work
from asyncsdk.worker.worker import Worker


class Slow:
    """Takes as many seconds as the payload says."""

    kind = "slow"

    def offers(self) -> dict[str, Any]:
        return {}

    async def run(self, work: Work) -> Any:
        await asyncio.sleep(float(str(work.job.payload.get("seconds", 0))))
        return work.job.payload


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each message was sent."""
    counts: Counter[str] = Counter()
    send = EmbeddedPlatform.send

    async def counting(self: EmbeddedPlatform, message: Message[Any]) -> Any:
        counts[type(message).__name__] += 1
        return await send(self, message)

    monkeypatch.setattr(EmbeddedPlatform, "send", counting)
    return counts


async def test_an_end_is_heard_instead_of_asked_for(tmp_path: Path, asked: Counter[str]) -> None:
    """While a job runs here for a second, its waiter asks a few times, not fifty; the end comes with the signal."""
    async with AsyncClient(data=tmp_path) as client, Worker(client, runners=[Slow()]):
        job = await client.jobs.create("slow", {"seconds": 1.0})
        asked.clear()
        assert await job == {"seconds": 1.0}
        assert asked["GetJob"] <= 8
        assert signals_of(client)._waiters == {}


async def test_many_waiters_of_a_queue_ask_little(tmp_path: Path, asked: Counter[str]) -> None:
    """Twenty jobs in a row, each 50 ms: asking as before would take hundreds of questions."""
    async with AsyncClient(data=tmp_path) as client, Worker(client, runners=[Slow()], concurrency=1):
        jobs = [await client.jobs.create("slow", {"seconds": 0.05, "n": n}) for n in range(20)]
        asked.clear()
        assert [found["n"] for found in await asyncio.gather(*jobs)] == list(range(20))
        assert asked["GetJob"] <= 20 * 8


async def test_jobs_done_elsewhere_are_found_by_asking(tmp_path: Path) -> None:
    """A worker of another client gives no signals, also where one of this client takes other kinds."""
    async with (
        AsyncClient(data=tmp_path) as other,
        Worker(other, runners=[Slow()]),
        AsyncClient(data=tmp_path) as client,
    ):
        assert await (await client.jobs.create("slow", {"seconds": 0.1})).wait_result(30) == {"seconds": 0.1}
        assert not any([signals_of(client).expects(job) async for job in client.jobs.list()])


async def test_cancelling_is_heard(tmp_path: Path) -> None:
    """A waiter learns of the cancellation that another task of the program asked for."""
    async with AsyncClient(data=tmp_path) as client, Worker(client, runners=[Slow()]):
        job = await client.jobs.create("slow", {"seconds": 60})
        waiting = asyncio.create_task(job.wait_result(30))
        await asyncio.sleep(0.1)
        await job.cancel()
        with pytest.raises(JobCancelled):
            await waiting


async def test_a_worker_that_left_is_not_waited_for(tmp_path: Path) -> None:
    """Its jobs may be taken by anybody then."""
    async with AsyncClient(data=tmp_path) as client:
        async with Worker(client, runners=[Slow()]):
            job = await client.jobs.create("slow", {"seconds": 0})
            assert signals_of(client).expects(job)
            await job
        assert not signals_of(client).expects(job)


def test_each_client_has_its_own(tmp_path: Path) -> None:
    """And the same one always."""
    one, two = AsyncClient(data=tmp_path), AsyncClient(data=tmp_path)
    assert isinstance(signals_of(one), JobSignals)
    assert signals_of(one) is signals_of(one)
    assert signals_of(one) is not signals_of(two)
