"""The embedded platform does jobs in the client's own process, when nobody else does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import asyncsdk
from asyncsdk import AsyncClient
from asyncsdk.errors import NoWorker, RunnerUnavailable
from asyncsdk.protocol.workers import BeatWorker, CreateWorker
from asyncsdk.worker import worker as worker_module
from asyncsdk.worker.runners import Runner
from tests.support.jobs import EchoRunner


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> EchoRunner:
    """What does ``echo``, as if it were installed."""
    runner = EchoRunner()

    def find(kinds: tuple[str, ...]) -> tuple[list[Runner], list[RunnerUnavailable]]:
        if kinds == ("echo",):
            return [runner], []
        return [], [RunnerUnavailable("predict", "pip install 'asyncsdk[predict]'")]

    monkeypatch.setattr(worker_module, "find_runners", find)
    return runner


async def test_a_worker_starts_when_it_is_needed(tmp_path: Path, runner: EchoRunner) -> None:
    """It serves all jobs of the kind, and ends with the client: nothing is left of it."""
    async with AsyncClient(data=tmp_path) as client:
        assert await (await client.jobs.create("echo", {"n": 1})) == {"echo": {"n": 1}}
        (worker,) = await client.workers.list().to_list()
        assert (worker.is_temporary, worker.is_online, list(worker.offers)) == (True, True, ["echo"])
        assert await (await client.jobs.create("echo", {"n": 2})) == {"echo": {"n": 2}}
        (same,) = await client.workers.list().to_list()
        assert same.id == worker.id
    async with AsyncClient(data=tmp_path) as client:
        assert await client.workers.list().to_list() == []


async def test_two_jobs_at_once_start_one_worker(tmp_path: Path, runner: EchoRunner) -> None:
    async with AsyncClient(data=tmp_path) as client:
        jobs = await asyncio.gather(*(client.jobs.create("echo", {"n": n}) for n in range(8)))
        assert [await job for job in jobs] == [{"echo": {"n": n}} for n in range(8)]
        assert len(await client.workers.list().to_list()) == 1


async def test_closing_the_client_gives_jobs_back_and_the_next_goes_on(tmp_path: Path, runner: EchoRunner) -> None:
    """Whoever waits for the job in the next process has it done there."""
    async with AsyncClient(data=tmp_path) as client:
        job = await client.jobs.create("echo", {"sleep": 3}, max_attempts=1)
        async for now in job.watch():
            if now.status == "running":
                break
        while job.id not in runner.begun:  # claimed, its folder being made
            await asyncio.sleep(0.01)
    assert runner.cancelled == [job.id]
    async with AsyncClient(data=tmp_path) as client:
        again = await client.jobs.get(job.id)
        assert again.status == "queued"
        assert await again == {"echo": {"sleep": 3}}


async def test_a_job_that_nobody_takes_is_done_here(tmp_path: Path, runner: EchoRunner) -> None:
    """A worker seemed to be there when it was created, and is not."""
    async with AsyncClient(data=tmp_path) as client:
        made = await client.send(CreateWorker(name="gone"))
        await client.send(BeatWorker(worker_id=made.id, offers={"echo": {}, "predict": {}}))
        job = await client.jobs.create("echo")
        unknown = await client.jobs.create("predict")
        assert len(await client.workers.list().to_list()) == 1
        assert await job.wait_result(timeout=30) == {"echo": {}}
        assert (await unknown.refresh()).status == "queued"


async def test_what_is_missing_is_told(tmp_path: Path, runner: EchoRunner) -> None:
    async with AsyncClient(data=tmp_path) as client:
        with pytest.raises(NoWorker, match=r"asyncsdk\[predict\]"):
            await client.jobs.create("predict")
        assert await client.jobs.list().to_list() == []
        with pytest.raises(RunnerUnavailable):
            async with client.worker(kinds=["predict"]):
                pass


async def test_a_worker_for_the_length_of_a_block(tmp_path: Path, runner: EchoRunner) -> None:
    async with AsyncClient(data=tmp_path) as client:
        async with client.worker(kinds=["echo"], name="mine", labels=["x"], concurrency=3) as worker:
            assert (worker.name, worker.labels) == ("mine", ("x",))
            assert await (await client.jobs.create("echo", labels=["x"])) == {"echo": {}}
        assert (await worker.refresh()).is_online is False


async def test_a_dead_worker_is_replaced(tmp_path: Path, runner: EchoRunner) -> None:
    """An error that nobody foresaw ended its task."""
    async with AsyncClient(data=tmp_path) as client:
        await (await client.jobs.create("echo"))
        assert client._local_workers is not None
        (worker,) = client._local_workers._workers.values()
        worker._tasks[0].cancel()
        await asyncio.wait({worker._tasks[0]})
        assert not worker.is_running
        assert await (await client.jobs.create("echo", {"n": 2})).wait_result(timeout=30) == {"echo": {"n": 2}}


def test_the_blocking_client(tmp_path: Path, runner: EchoRunner) -> None:
    """Its worker runs on the loop of the blocking calls."""
    with asyncsdk.Client(data=tmp_path) as client:
        job = client.jobs.create("echo", {"lines": 3})
        assert job.wait_result() == {"echo": {"lines": 3}}
        assert [line.text for line in job.logs()] == ["line 0", "line 1", "line 2"]
        with client.worker(kinds=["echo"], name="mine") as worker:
            assert worker.refresh().name == "mine"
