"""Jobs from the client's side, and workers that do them: on every platform the same."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.entities.jobs import AsyncJob
from asyncsdk.errors import (
    ConfigError,
    DeadlineExceeded,
    JobCancelled,
    JobFailed,
    JobLost,
    NotFound,
    NoWorker,
    SourceNotFound,
)
from asyncsdk.protocol.jobs import ClaimJob, CreateJob, ReportJob
from asyncsdk.protocol.workers import BeatWorker, CreateWorker
from asyncsdk.server import backend as backend_module
from asyncsdk.worker import Worker
from asyncsdk.worker import attempt as attempt_module
from tests.support.jobs import EchoRunner

SHORT_LEASE = 1.5


@pytest.fixture
def runner() -> EchoRunner:
    return EchoRunner()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the folders of attempts are."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
async def working(client: AsyncClient, runner: EchoRunner, scratch: Path) -> AsyncIterator[Worker]:
    """A worker that does ``echo``, two at once."""
    async with Worker(client, runners=[runner], concurrency=2) as worker:
        yield worker
    assert list(scratch.iterdir()) == []


async def until(job: AsyncJob[Any], status: str) -> AsyncJob[Any]:
    async for now in job.watch():
        if now.status == status:
            return now
    raise AssertionError(f"the job ended without being {status}")


@pytest.mark.usefixtures("working")
async def test_awaiting_a_job_gives_its_result(client: AsyncClient) -> None:
    job = await client.jobs.create("echo", {"n": 1}, metadata={"mine": True})
    assert (job.status, job.is_finished, job.payload) == ("queued", False, {"n": 1})
    assert await job == {"echo": {"n": 1}}
    done = await job.wait()
    assert (done.succeeded, done.is_finished, done.stage, done.progress) == (True, True, "halfway", 1.0)
    again = await client.jobs.get(job.id)
    assert (again, await again.wait_result()) == (done, {"echo": {"n": 1}})
    assert [one.id async for one in client.jobs.list(kind="echo", status="succeeded")] == [job.id]
    await done.delete()
    with pytest.raises(NotFound):
        await job.refresh()


@pytest.mark.usefixtures("working")
async def test_files_go_in_and_come_out(client: AsyncClient, tmp_path: Path) -> None:
    """From paths and from memory; what comes out is byte for byte what the runner wrote."""
    (tmp_path / "a.bin").write_bytes(b"abc")
    job = await client.jobs.create("echo", inputs={"a": tmp_path / "a.bin", "b": b"x" * 300_000})
    await job
    files = {(file.direction, file.name): file async for file in job.artifacts.list()}
    assert set(files) == {("input", "a"), ("input", "b"), ("output", "a.reversed"), ("output", "b.reversed")}
    output = files["output", "a.reversed"]
    await output.download(tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == b"cba"
    (tmp_path / "folder").mkdir()
    await (await job.artifacts.get(output.id)).download(tmp_path / "folder")
    assert (tmp_path / "folder" / "a.reversed").read_bytes() == b"cba"
    with pytest.raises(SourceNotFound):
        await client.jobs.create("echo", inputs={"a": tmp_path / "missing"})
    with pytest.raises(ConfigError):
        await client.jobs.create("echo", inputs={"a": 3})  # type: ignore[dict-item]


@pytest.mark.usefixtures("working")
async def test_an_error_of_the_runner_is_the_job_s(client: AsyncClient) -> None:
    """With the reason, the traceback in its log; a retry runs it again."""
    job = await client.jobs.create("echo", {"fail": "no such thing", "lines": 2})
    with pytest.raises(JobFailed, match="no such thing") as info:
        await job
    assert (info.value.job_id, info.value.error_code, info.value.code) == (job.id, "unexpected", "job_failed")
    lines = [line async for line in job.logs()]
    assert [line.text for line in lines[:2]] == ["line 0", "line 1"]
    assert (lines[2].level, "ValueError: no such thing" in lines[2].text) == ("error", True)
    assert [line.text async for line in job.logs(after=1)] == [line.text for line in lines[1:]]
    again = await job.retry()
    assert again.status in {"queued", "running"}
    with pytest.raises(JobFailed):
        await again
    assert (await job.refresh()).attempts == 2


@pytest.mark.parametrize("payload", [{"sleep": 600}, {"block": 600}])
async def test_cancelling_a_job_that_runs(
    client: AsyncClient, working: Worker, runner: EchoRunner, payload: dict[str, Any]
) -> None:
    """The runner is stopped, in a thread too; whoever waits hears of it."""
    job = await client.jobs.create("echo", payload)
    running = await until(job, "running")
    assert (running.is_finished, running.worker_id) == (False, working.record.id)
    assert (await job.cancel()).is_cancel_requested
    with pytest.raises(JobCancelled):
        await job
    assert runner.cancelled == [job.id]


@pytest.mark.usefixtures("working")
async def test_a_log_is_followed_to_its_end(client: AsyncClient) -> None:
    """Also when there are more lines than a report takes."""
    job = await client.jobs.create("echo", {"lines": 2500, "sleep": 0.2})
    assert [line.text async for line in job.logs(follow=True)] == [f"line {n}" for n in range(2500)]


async def test_waiting_has_a_limit(client: AsyncClient, working: Worker) -> None:
    """The job goes on."""
    job = await client.jobs.create("echo", {"sleep": 600})
    with pytest.raises(DeadlineExceeded, match=job.id):
        await job.wait(timeout=0.2)
    assert (await until(job, "running")).id == job.id
    assert working.record.is_online


async def test_a_worker_that_ends_gives_its_jobs_back(client: AsyncClient, runner: EchoRunner) -> None:
    """At once, without counting the attempt; what waits stays. The next worker does them."""
    async with Worker(client, runners=[runner]) as worker:
        job = await client.jobs.create("echo", {"sleep": 1}, max_attempts=1)
        waiting = await client.jobs.create("echo", {})
        await until(job, "running")
        while job.id not in runner.begun:  # claimed, its folder being made
            await asyncio.sleep(0.01)
    assert runner.cancelled == [job.id]
    now = await job.refresh()
    assert (now.status, now.attempts) == ("queued", 1)
    assert (await waiting.refresh()).status == "queued"
    with pytest.raises(NotFound):
        await client.workers.get(worker.record.id)
    async with Worker(client, name="kept", labels=["x"], runners=[runner]):
        assert await job == {"echo": {"sleep": 1}}
        await waiting
    (kept,) = await client.workers.list().to_list()
    assert (kept.name, kept.labels, kept.is_online) == ("kept", ("x",), False)


async def test_a_lost_lease_stops_the_run(
    client: AsyncClient, runner: EchoRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was not heard of in time stops, and says nothing of a job that another one has."""
    async with Worker(client, runners=[runner], lease_seconds=SHORT_LEASE):
        job = await client.jobs.create("echo", {"sleep": 600}, max_attempts=1)
        await until(job, "running")
        real = backend_module._now_ms
        monkeypatch.setattr(backend_module, "_now_ms", lambda: real() + 10_000)
        with pytest.raises(JobLost):
            await job
        while not runner.cancelled:
            await asyncio.sleep(0.02)
    assert (runner.begun, runner.cancelled) == ([job.id], [job.id])
    assert (await job.refresh()).status == "lost"


async def test_a_platform_that_is_not_heard_stops_the_run(
    client: AsyncClient, runner: EchoRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's own clock tells that the lease is over: somebody else may have the job by now."""
    sent: list[type] = []
    real = client.send

    async def send(message: Any) -> Any:
        sent.append(type(message))
        if isinstance(message, ReportJob):
            raise Unheard("gone")
        return await real(message)

    class Unheard(attempt_module.AsyncSDKError):
        retryable = True

    async with Worker(client, runners=[runner], lease_seconds=1.0):
        monkeypatch.setattr(client, "send", send)
        job = await client.jobs.create("echo", {"sleep": 600})
        while not runner.cancelled:
            await asyncio.sleep(0.02)
        monkeypatch.setattr(client, "send", real)
    assert ReportJob in sent
    assert (await client.jobs.get(job.id)).status in {"queued", "running"}


async def test_a_job_is_lost_when_workers_go_away_with_it(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await client.send(CreateWorker(name="w"))
    await client.send(BeatWorker(worker_id=made.id, offers={"echo": {}}))
    job = await client.jobs.create("echo", max_attempts=1)
    await client.send(ClaimJob(worker_id=made.id, claim_id=job.id))
    real = backend_module._now_ms
    monkeypatch.setattr(backend_module, "_now_ms", lambda: real() + 31_000)
    with pytest.raises(JobLost) as info:
        await job
    assert (info.value.job_id, info.value.attempts) == (job.id, 1)


async def test_nobody_does_such_jobs(client: AsyncClient) -> None:
    """That is told at once, whether or not this process could have done it; nothing is queued."""
    with pytest.raises(NoWorker):
        await client.jobs.create("never_heard_of")
    assert await client.jobs.list().to_list() == []
    with pytest.raises(NoWorker):
        await client.send(CreateJob(job_id="a" * 24, kind="never_heard_of"))


async def test_draining(client: AsyncClient, runner: EchoRunner) -> None:
    """What is under way is done, nothing new is taken."""
    async with Worker(client, runners=[runner]) as worker:
        first = await client.jobs.create("echo", {"sleep": 0.2})
        await until(first, "running")
        second = await client.jobs.create("echo")
        assert worker.drain() is True
        await worker.wait()
        assert (await first.refresh()).status == "succeeded"
        assert (await second.refresh()).status == "queued"
    assert worker.jobs_done == 1


async def test_run_waiting(client: AsyncClient, runner: EchoRunner) -> None:
    """Does what waits and returns; what is woken by nobody is done all the same."""
    async with Worker(client, runners=[runner]):
        pass
    made = await client.send(CreateWorker(name="w"))
    await client.send(BeatWorker(worker_id=made.id, offers={"echo": {}}))
    jobs = [await client.jobs.create("echo", {"n": n}) for n in range(5)]
    async with Worker(client, runners=[runner], concurrency=3) as worker:
        await worker.run_waiting()
    assert [(await job.refresh()).status for job in jobs] == ["succeeded"] * 5
    assert worker.jobs_done == 5


async def test_workers_are_made_known_before_they_come(client: AsyncClient) -> None:
    made = await client.workers.create("gpu-1", labels=["gpu"])
    assert await client.workers.create("gpu-1") == made
    assert [one.id async for one in client.workers.list()] == [made.id]
    assert (await made.refresh()).labels == ("gpu",)
    await client.workers.delete(made)
    with pytest.raises(NotFound):
        await client.workers.get(made.id)


async def test_nothing_is_read_for_a_job_that_nobody_does(client: AsyncClient) -> None:
    """It is refused before its inputs are sent."""
    is_read = False

    async def image() -> AsyncIterator[bytes]:
        nonlocal is_read
        is_read = True
        yield b"bytes"

    with pytest.raises(NoWorker):
        await client.jobs.create("thumbnails", inputs={"a": image()})
    assert not is_read
    async with Worker(client, runners=[EchoRunner()]):
        assert await (await client.jobs.create("echo", inputs={"a": image()})) == {"echo": {}}
    assert is_read
