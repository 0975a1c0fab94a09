"""What nobody foresaw: runners that end the program, text that is none, a broken take loop, names used twice."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue

from asyncsdk import AsyncClient
from asyncsdk.errors import AsyncSDKError, JobFailed, ServerError
from asyncsdk.protocol.jobs import ReportJob
from asyncsdk.protocol.workers import BeatWorker, PeekJobs
from asyncsdk.worker import Worker
from asyncsdk.worker.runners import Work
from tests.support.jobs import EchoRunner

pytestmark = pytest.mark.timeout(60)


class OneRunner:
    """Does ``one`` jobs by calling what it was given."""

    kind = "one"

    def __init__(self, do: Callable[[Work], Awaitable[JsonValue]]) -> None:
        self._do = do

    def offers(self) -> Mapping[str, JsonValue]:
        return {}

    async def run(self, work: Work) -> JsonValue:
        return await self._do(work)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(data=tmp_path / "data") as client:
        yield client


async def test_a_runner_that_ends_the_program_fails_its_job(client: AsyncClient) -> None:
    """In the loop and in a thread; the worker goes on with the next job."""

    async def leave(work: Work) -> JsonValue:
        if work.job.payload:
            await work.in_thread(sys.exit, 3)  # as a library might
        raise SystemExit(3)

    async with Worker(client, runners=[OneRunner(leave)]) as worker:
        for payload in ({}, {"in": "a thread"}):
            with pytest.raises(JobFailed, match="wanted to end the program, with status 3"):
                await (await client.jobs.create("one", payload)).wait_result(timeout=30)
        assert worker.is_running


async def test_text_that_utf8_cannot_say_is_told_all_the_same(client: AsyncClient) -> None:
    """Names of files may hold such bytes: in errors, reports and logs."""

    async def fail(work: Work) -> JsonValue:
        await work.report(stage="\udcff", message="reading \udcff.jpg")
        await work.log("read \udcff.jpg")
        raise ValueError("no image: \udcff.jpg")

    async with Worker(client, runners=[OneRunner(fail)]):
        job = await client.jobs.create("one")
        with pytest.raises(JobFailed, match=r"no image: \\udcff\.jpg"):
            await job.wait_result(timeout=30)
        now = await job.refresh()
        assert (now.attempts, now.stage, now.message) == (1, "\\udcff", "reading \\udcff.jpg")
        assert (await anext(aiter(job.logs()))).text == "read \\udcff.jpg"


async def test_a_machine_without_temporary_files_fails_the_job(
    client: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Worker(client, runners=[EchoRunner()]):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
        with pytest.raises(JobFailed) as info:
            await (await client.jobs.create("echo")).wait_result(timeout=30)
    assert info.value.error_code == "destination_unwritable"


async def test_logs_wait_for_a_platform_that_is_away(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """More lines than may wait: the runner waits with them, and all of them arrive."""
    monkeypatch.setattr("asyncsdk.worker.attempt._RETRY_SECONDS", 0.01)
    send, refused = client.send, 0

    async def broken(message: object) -> object:
        nonlocal refused
        if isinstance(message, ReportJob) and refused < 3:
            refused += 1
            raise ServerError("away", status=503)
        return await send(message)  # type: ignore[arg-type]

    monkeypatch.setattr(client, "send", broken)
    async with Worker(client, runners=[EchoRunner()]):
        job = await client.jobs.create("echo", {"lines": 2100})
        await job.wait_result(timeout=50)
        assert refused == 3
        assert [line.text async for line in job.logs()] == [f"line {number}" for number in range(2100)]


async def test_what_ends_a_worker_is_told_and_raised(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At once in the log, at the end of its block as the error; unless the block has one of its own."""
    send = client.send

    async def broken(message: object) -> object:
        if isinstance(message, PeekJobs):
            raise ZeroDivisionError("nobody foresaw this")
        return await send(message)  # type: ignore[arg-type]

    async def work(error: Exception | None) -> None:
        async with Worker(client, runners=[EchoRunner()]) as worker:
            while worker.is_running:
                await asyncio.sleep(0.01)
            if error is not None:
                raise error

    monkeypatch.setattr(client, "send", broken)
    with caplog.at_level(logging.ERROR), pytest.raises(ZeroDivisionError):
        await work(None)
    assert "the worker takes no more jobs: ZeroDivisionError: nobody foresaw this" in caplog.text
    with pytest.raises(KeyError):
        await work(KeyError("its own"))
    assert await client.workers.list().to_list() == []


async def test_two_workers_of_one_name_take_no_jobs_that_they_cannot_do(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The platform knows the offers of the one that beat last; the other one gives the job back and says why."""
    monkeypatch.setattr("asyncsdk.worker.worker._ERROR_SECONDS", 0.05)

    async def one(work: Work) -> JsonValue:
        return 1

    async with Worker(client, name="same", runners=[EchoRunner()]) as first:
        await client.send(BeatWorker(worker_id=first.record.id, offers={"one": {}}))  # what the other one says
        job = await client.jobs.create("one", max_attempts=1)
        while "give each a name of its own" not in caplog.text:
            await asyncio.sleep(0.01)
        async with Worker(client, name="same", runners=[OneRunner(one)]):
            assert await job.wait_result(timeout=30) == 1
        assert first.is_running


async def test_a_forked_child_leaves_the_jobs_alone(client: AsyncClient) -> None:
    """It inherits the worker, and may end its block; the jobs are the parent's."""
    async with Worker(client, runners=[EchoRunner()]) as worker:
        job = await client.jobs.create("echo", {"sleep": 600})
        async for now in job.watch():
            if now.status == "running":
                break
        worker._pid -= 1  # what a child sees
        await worker.aclose()
        worker._pid += 1
        assert worker.is_running
        assert (await job.refresh()).status == "running"
        await job.cancel()
        with pytest.raises(AsyncSDKError):
            await job
