"""Workers as processes of their own: they share a queue, die, and are taken over for."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import asyncsdk
from asyncsdk import AsyncClient
from asyncsdk.entities.jobs import AsyncJob
from asyncsdk.errors import NoWorker
from tests.support.server import ServedProcess

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]

# A distribution as far as entry points go: what somebody's own runner is to us.
_RUNNERS = """
import asyncio, os
class Marker:
    '''Writes a line for each attempt that it begins, and does what the payload says.'''
    kind = "mark"
    def offers(self):
        return {"pid": os.getpid()}
    async def run(self, work):
        with open(os.environ["MARKS"], "a") as file:
            file.write(f"{work.job.id} {work.job.attempts} {os.getpid()}\\n")
        await work.report(progress=0.5)
        await asyncio.sleep(work.job.payload.get("sleep", 0))
        return os.getpid()
class Broken:
    kind = "broken"
    def __init__(self):
        raise ImportError("libbroken.so: no such file")
"""


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    return tmp_path / "marks"


@pytest.fixture
def environment(tmp_path: Path, marks: Path) -> dict[str, str]:
    """An environment in which runners of the kinds ``mark`` and ``broken`` are installed."""
    site = tmp_path / "site"
    info = site / "marking-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "marking.py").write_text(_RUNNERS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: marking\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[asyncsdk.runners]\nmark = marking:Marker\nbroken = marking:Broken\n")
    paths = os.pathsep.join([str(site), str(ROOT)])
    # A worker that is killed leaves the folder of its job behind: not where others would find it.
    own = {"PYTHONPATH": paths, "MARKS": str(marks), "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)}
    return {**os.environ, **own}


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Starts ``asyncsdk worker`` and returns when it takes jobs; all are gone in the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "asyncsdk", "worker", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        assert process.stderr is not None
        assert " does: " in (line := process.stderr.readline()), line
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def attempts(marks: Path) -> list[tuple[str, int, int]]:
    """What was begun: job, attempt, process."""
    lines = marks.read_text().splitlines() if marks.exists() else []
    return [(job, int(attempt), int(pid)) for job, attempt, pid in (line.split() for line in lines)]


async def until_begun(marks: Path, count: int) -> list[tuple[str, int, int]]:
    while len(found := attempts(marks)) < count:
        await asyncio.sleep(0.02)
    return found


@pytest.mark.parametrize("is_served", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["embedded", "rest"])
async def test_two_workers_never_take_one_job(tmp_path: Path, start: Start, marks: Path, is_served: bool) -> None:
    """200 jobs, two processes with two hands each: every job is begun once, and both have their share."""

    async def work(client: AsyncClient, *where: str) -> None:
        processes = [start(*where, "--kinds", "mark", "--jobs", 2) for _ in range(2)]
        jobs = [await client.jobs.create("mark", {"sleep": 0.01}) for _ in range(200)]
        results = [await job for job in jobs]
        assert Counter(job for job, _, _ in attempts(marks)) == Counter(job.id for job in jobs)
        assert {attempt for _, attempt, _ in attempts(marks)} == {1}
        assert set(results) == {process.pid for process in processes}

    data = tmp_path / "data"
    if not is_served:
        async with AsyncClient(data=data) as client:
            await work(client, "--data", str(data))
        return
    with ServedProcess(data) as served:
        async with AsyncClient(served.url, token=served.token) as client:
            await work(client, "--url", served.url, "--token", served.token)


async def test_a_killed_worker_s_job_is_taken_over(
    tmp_path: Path, start: Start, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle: when the lease is over, another one does the job."""
    async with AsyncClient(data=tmp_path / "data") as client:
        first = start("--data", tmp_path / "data", "--kinds", "mark")
        job = await client.jobs.create("mark", {"sleep": 1})
        await until_begun(marks, 1)
        first.kill()
        first.wait()
        assert (await job.refresh()).status == "running"
        second = start("--data", tmp_path / "data", "--kinds", "mark")
        _expire(tmp_path / "data", job)
        assert await job.wait_result(timeout=60) == second.pid
    assert [(attempt, pid) for _, attempt, pid in attempts(marks)] == [(1, first.pid), (2, second.pid)]


_SHORT_LEASE = """
import asyncio, sys
from asyncsdk import AsyncClient
from asyncsdk.worker import Worker
async def main():
    async with AsyncClient(data=sys.argv[1]) as client, Worker(client, kinds=["mark"], lease_seconds=2) as worker:
        print("ready", flush=True)
        await worker.wait()
asyncio.run(main())
"""


async def test_a_killed_worker_s_lease_runs_out_by_itself(
    tmp_path: Path, environment: dict[str, str], start: Start, marks: Path
) -> None:
    """SIGKILL, and nobody helps: two seconds later the job is the next one's, and what the first left is gone."""
    data = tmp_path / "data"
    command = [sys.executable, "-c", _SHORT_LEASE, str(data)]
    async with AsyncClient(data=data) as client:
        first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert first.stdout is not None
            assert await asyncio.to_thread(first.stdout.readline) == "ready\n"
            job = await client.jobs.create("mark", {"sleep": 3})  # longer than a lease: reports keep it
            await until_begun(marks, 1)
            while (await client.jobs.get(job.id)).progress is None:  # it is reported: the lease was extended
                await asyncio.sleep(0.05)
        finally:
            first.kill()
            first.communicate()
        (left,) = tmp_path.glob("asyncsdk-job-*")
        second = start("--data", data, "--kinds", "mark")
        assert not left.exists()
        assert await job.wait_result(timeout=60) == second.pid
        assert (await job.refresh()).attempts == 2
    assert [(attempt, pid) for _, attempt, pid in attempts(marks)] == [(1, first.pid), (2, second.pid)]
    assert list(tmp_path.glob("asyncsdk-job-*")) == []


def _expire(data: Path, job: AsyncJob[object]) -> None:
    """Let the lease of a job be over, as if half a minute had passed."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(data / "asyncsdk.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE jobs SET lease_expires_at = 1 WHERE id = ?", (job.id,))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals(tmp_path: Path, start: Start, marks: Path, number: signal.Signals) -> None:
    """SIGTERM gives the job back at once; Ctrl-C finishes it first. Either way the worker takes leave."""
    async with AsyncClient(data=tmp_path / "data") as client:
        process = start("--data", tmp_path / "data", "--kinds", "mark")
        job = await client.jobs.create("mark", {"sleep": 1})
        await until_begun(marks, 1)
        process.send_signal(number)
        await asyncio.to_thread(process.wait, 60)
        now = await job.refresh()
        assert await client.workers.list().to_list() == []
        if number == signal.SIGTERM:
            assert (process.returncode, now.status, now.attempts) == (143, "queued", 1)
            with pytest.raises(NoWorker):
                await client.jobs.create("mark")
        else:
            assert (process.returncode, now.status) == (0, "succeeded")


def test_a_worker_says_what_it_does_and_what_not(tmp_path: Path, environment: dict[str, str]) -> None:
    """One broken runner does not stop the others; with nothing at all to do it refuses to run."""
    command = [sys.executable, "-m", "asyncsdk", "worker", "--once", "--data", str(tmp_path / "data"), "--json"]
    done = subprocess.run([*command, "--kinds", "mark,broken"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"offers":{"mark":{"pid":' in done.stdout
    assert "libbroken.so" in done.stdout
    done = subprocess.run([*command, "--kinds", "broken"], env=environment, capture_output=True, text=True)
    assert (done.returncode, '"runner_unavailable"' in done.stdout) == (7, True)
    done = subprocess.run([*command, "--jobs", "0"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2


async def test_a_server_brings_a_worker_along(tmp_path: Path, environment: dict[str, str], marks: Path) -> None:
    """A child process that is started again when it ends, and ends with the server; ``--no-worker`` leaves it out."""
    data = tmp_path / "data"
    command = [sys.executable, "-m", "asyncsdk", "serve", "--port", "0", "--data", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        token = (data / "token").read_text().strip()
        async with AsyncClient(url, token=token) as client:
            first = await _served(client)
            os.kill(first, signal.SIGKILL)
            while (second := await _served(client)) == first:
                await asyncio.sleep(0.05)
        process.terminate()
        await asyncio.to_thread(process.wait, 60)
        assert process.returncode == 0
        with pytest.raises(ProcessLookupError):
            os.kill(second, 0)
    finally:
        process.kill()
        process.communicate()


async def test_a_killed_server_takes_its_worker_along(tmp_path: Path, environment: dict[str, str], marks: Path) -> None:
    """SIGKILL: the worker hears of it, gives its job back and ends."""
    data = tmp_path / "data"
    command = [sys.executable, "-m", "asyncsdk", "serve", "--port", "0", "--data", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().split()[-1]
        async with AsyncClient(url, token=(data / "token").read_text().strip()) as client:
            await _served(client)
            job = await client.jobs.create("mark", {"sleep": 600}, max_attempts=1)
            await until_begun(marks, 2)
        process.kill()
        await asyncio.to_thread(process.stderr.read)  # until the worker ended, too: it has that pipe as well
        async with AsyncClient(data=data) as client:
            now = await client.jobs.get(job.id)
            assert (now.status, now.attempts) == ("queued", 1)
            assert await client.workers.list().to_list() == []
    finally:
        process.kill()
        process.communicate()


async def _served(client: AsyncClient) -> int:
    """Return the process that did a job, as soon as one does."""
    while True:
        try:
            job = await client.jobs.create("mark")
        except NoWorker:
            await asyncio.sleep(0.05)
            continue
        result: int = await job.wait_result(timeout=60)
        return result


async def test_a_worker_ends_with_the_program_that_started_it(tmp_path: Path, environment: dict[str, str]) -> None:
    """Also when that was killed: its standard input ends."""
    command = [sys.executable, "-m", "asyncsdk", "worker", "--data", str(tmp_path / "data"), "--until-stdin-ends"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        assert " does: " in process.stderr.readline()
    finally:
        _, errors = await asyncio.to_thread(process.communicate, None, 60)
    assert process.returncode == 0, errors
    with Path(os.devnull).open() as nothing:
        done = await asyncio.to_thread(subprocess.run, command, stdin=nothing, env=environment, timeout=60)
    assert done.returncode == 0


def test_blocking_jobs(tmp_path: Path, start: Start) -> None:
    """The blocking twin: create, watch, wait, log, files, workers."""
    with asyncsdk.Client(data=tmp_path / "data") as client:
        start("--data", tmp_path / "data", "--kinds", "mark")
        job = client.jobs.create("mark", {"sleep": 0.2}, inputs={"a": iter([b"a", b"bc"])})
        assert [now.status for now in job.watch()][-1] == "succeeded"
        assert job.wait().result == job.wait_result()
        assert [file.name for file in job.artifacts.list()] == ["a"]
        assert list(job.logs(follow=True)) == []
        assert [one.id for one in client.jobs.list(status="succeeded")] == [job.id]
        (worker,) = client.workers.list()
        assert worker.is_online
        job.delete()
        assert list(client.jobs.list()) == []


def test_the_commands(tmp_path: Path, start: Start, environment: dict[str, str], marks: Path) -> None:
    """``asyncsdk jobs`` and ``asyncsdk workers`` show, wait, cancel, retry, print and download."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "asyncsdk", *map(str, arguments), "--data", str(tmp_path / "data")]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    start("--data", tmp_path / "data", "--kinds", "mark", "--name", "w1", "--labels", "gpu,big")
    with asyncsdk.Client(data=tmp_path / "data") as client:
        done = client.jobs.create("mark")
        waiting = client.jobs.create("mark", labels=["never"])
    waited = call("jobs", "wait", done.id)
    assert (waited.returncode, "succeeded" in waited.stdout) == (0, True)
    assert waiting.id in call("jobs", "list", "--status", "queued").stdout
    assert call("jobs", "get", waiting.id, "--json").stdout.count('"labels":["never"]') == 1
    assert "cancelled" in call("jobs", "cancel", waiting.id).stdout
    assert call("jobs", "wait", waiting.id).returncode == 3
    assert "queued" in call("jobs", "retry", waiting.id).stdout
    assert call("jobs", "wait", waiting.id, "--timeout", "0.2").returncode == 3
    assert call("jobs", "logs", done.id).stdout == ""
    assert call("jobs", "download", done.id, tmp_path / "out").returncode == 0
    assert call("jobs", "get", "f" * 24).returncode == 5
    listed = call("workers", "list").stdout
    assert "w1" in listed
    assert "big, gpu" in listed
    assert "w1" in call("workers", "delete", "w1").stdout
