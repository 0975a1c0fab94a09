"""Worker processes that end by themselves, and parents that do: nothing is lost, nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from asyncsdk.engine import Download, Engine, Outcome, Progress, PutTarget, Transfer, Upload, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.errors import WorkerCrashed
from tests.integration.test_lanes_agree import CONFIG
from tests.support.crew import crew_of, engine_with_workers, is_gone, until
from tests.support.feeds import multipart_target
from tests.support.http_server import Action, Connection, HttpServer, Received

ROOT = Path(__file__).parents[2]
CREW = replace(CONFIG, processes=2, concurrency=6, cleanup_seconds=5.0)
pytestmark = pytest.mark.timeout(60)


def kill(pid: int) -> None:
    """Kill a worker, if it is still there."""
    with contextlib.suppress(ProcessLookupError):  # somebody was faster
        os.kill(pid, signal.SIGKILL)


async def run_all(engine: Engine, transfers: list[Transfer], progress: list[Progress]) -> dict[object, Outcome]:
    """Return the outcomes of a run by key; one each."""
    outcomes: dict[object, Outcome] = {}
    async with engine.run(transfers, on_progress=progress.append) as run:
        async for outcome in run:
            assert outcome.transfer.key not in outcomes
            outcomes[outcome.transfer.key] = outcome
    return outcomes


@pytest.mark.parametrize("kills", [2, 5])
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
async def test_workers_killed_at_random_moments(tmp_path: Path, seed: int, kills: int) -> None:
    """Everything arrives as it is, once, counted once; no temporary file stays.

    An object that was under way in three crashes, in the last one alone, is given up as their cause. Two kills cannot
    make one of any, five can make one of three at most: each needs a crash of its own after two of all.
    """
    dice = random.Random(seed)
    large = dice.randbytes(5 * MiB)
    (tmp_path / "source").write_bytes(large)
    (tmp_path / "sinks").mkdir()
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        server.delay = 0.02
        server.objects["/large"] = large
        transfers: list[Transfer] = []
        for number in range(300):
            data = dice.randbytes(dice.randrange(40_000))
            server.objects[f"/get/{number}"] = data
            transfers.append(Upload(data, PutTarget(server.url(f"/put/{number}")), key=("put", number)))
            transfers.append(
                Download(server.url(f"/get/{number}"), tmp_path / "sinks" / str(number), key=("get", number))
            )
        for number in range(4):
            # The platform completes: what a worker completed and could not tell any more is no matter for repetition.
            target = multipart_target(server, 5, upload_id=f"U{number}", path=f"/parts/{number}", completes=False)
            transfers.insert(dice.randrange(600), Upload(tmp_path / "source", target, key=("parts", number)))
            origin = UrlOrigin(server.url("/large"), size_bytes=len(large))
            transfers.insert(
                dice.randrange(600), Download(origin, tmp_path / "sinks" / f"large{number}", key=("ranges", number))
            )

        async def killer() -> None:
            for number in range(1, kills + 1):
                # Three in a row before anything is finished would end the use of processes.
                await until(lambda: len(server.requests) > 100 * number and len(crew.pids) == 2)  # noqa: B023
                await asyncio.sleep(dice.uniform(0.0, 0.1))
                kill(dice.choice(crew.pids))

        crew = crew_of(engine)
        progress: list[Progress] = []
        killing = asyncio.create_task(killer())
        outcomes = await run_all(engine, transfers, progress)
        killing.cancel()
        await asyncio.wait([killing])
        given_up = {key: outcome for key, outcome in outcomes.items() if outcome.error}
        assert {type(outcome.error) for outcome in given_up.values()} <= {WorkerCrashed}
        assert {outcome.attempts for outcome in given_up.values()} <= {3}
        assert len(given_up) <= kills - 2
        assert len(outcomes) == 608
        assert not crew.is_alone
        for kind, number in outcomes.keys() - given_up.keys():
            if kind == "put":
                upload = outcomes["put", number].transfer
                assert isinstance(upload, Upload)
                assert server.objects[f"/put/{number}"] == upload.source
            elif kind == "get":
                assert (tmp_path / "sinks" / str(number)).read_bytes() == server.objects[f"/get/{number}"]
            elif kind == "parts":
                parts = server.uploads[f"U{number}"].parts
                assert b"".join(parts[key] for key in sorted(parts)) == large
            else:
                assert (tmp_path / "sinks" / f"large{number}").read_bytes() == large
        assert progress[-1].bytes_done == sum(outcome.size_bytes for outcome in outcomes.values())
        for kind, number in given_up:
            # Killed between putting a file in place and telling of it: then it is whole.
            path = tmp_path / "sinks" / (f"large{number}" if kind == "ranges" else f"{number}")
            if kind in {"get", "ranges"} and path.exists():
                assert path.read_bytes() == (large if kind == "ranges" else server.objects[f"/get/{number}"])
    assert not list(tmp_path.rglob("*.part"))


def worker_of(connection: Connection, pids: list[int]) -> int | None:
    """Return which worker is at the other end."""
    peer = connection.writer.get_extra_info("peername")
    for pid in pids:
        if any(found.laddr[:2] == peer for found in psutil.Process(pid).net_connections("tcp")):
            return pid
    return None


async def test_what_kills_every_worker_fails(tmp_path: Path) -> None:
    """A transfer that is under way in three crashes is not tried again; those beside it are none the worse."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        crew = crew_of(engine)
        server.objects["/poison"] = b"x" * 100

        progress: list[Progress] = []

        def others_went_on() -> bool:
            return not crew._crashes or (bool(progress) and progress[-1].objects_done >= 400)

        def poisonous() -> Action:
            async def action(connection: Connection, request: Received) -> bool:
                pid = await asyncio.to_thread(worker_of, connection, crew.pids)
                assert pid is not None
                await until(others_went_on)  # three in a row end the use of processes, which is another test
                kill(pid)
                return True

            return action

        def slow() -> Action:
            async def action(connection: Connection, request: Received) -> bool:
                await asyncio.sleep(0.02)
                return False

            return action

        server.script("/poison", *[poisonous() for _ in range(9)])
        transfers: list[Transfer] = []
        for number in range(400):
            server.script(f"/{number}", *[slow() for _ in range(4)])
            transfers.append(Upload(b"%d" % number, PutTarget(server.url(f"/{number}")), key=number))
        transfers.insert(100, Download(server.url("/poison"), tmp_path / "sink", key="poison"))
        outcomes = await run_all(engine, transfers, progress)
        error = outcomes.pop("poison").error
        assert isinstance(error, WorkerCrashed)
        assert error.crashes == 3
        assert "signal 9 (SIGKILL)" in str(error)
        assert not error.retryable
        assert error.destination == str(tmp_path / "sink")
        assert all(outcome.ok for outcome in outcomes.values())
        assert len(server.of("GET", "/poison")) == 3
        assert progress[-1].bytes_done == sum(outcome.size_bytes for outcome in outcomes.values())
        assert not crew.is_alone
    assert list(tmp_path.iterdir()) == []


async def test_parent_goes_on_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Three crashes without anything finished in between: the parent does the rest, and says so once."""
    async with HttpServer() as server, engine_with_workers(CREW) as engine:
        crew = crew_of(engine)
        is_alone = asyncio.Event()

        def waiting() -> Action:
            async def action(connection: Connection, request: Received) -> bool:
                await is_alone.wait()
                return False

            return action

        transfers: list[Transfer] = []
        for number in range(100):
            server.script(f"/{number}", *[waiting() for _ in range(4)])
            transfers.append(Upload(b"x", PutTarget(server.url(f"/{number}")), key=number))

        async def killer() -> None:
            while not crew.is_alone:
                await until(lambda: crew.pids or crew.is_alone)
                before = len(server.requests)
                await until(lambda: len(server.requests) > before or crew.is_alone)  # noqa: B023  # as below
                for pid in crew.pids[:1]:
                    kill(pid)
                    await until(lambda: pid not in crew.pids)  # noqa: B023  # it is waited for in this very turn
            is_alone.set()

        with caplog.at_level(logging.WARNING, "asyncsdk"):
            killing = asyncio.create_task(killer())
            outcomes = await run_all(engine, transfers, [])
            await killing
        assert len(outcomes) == 100
        assert all(outcome.ok or isinstance(outcome.error, WorkerCrashed) for outcome in outcomes.values())
        assert sum(not outcome.ok for outcome in outcomes.values()) <= 1
        assert len([record for record in caplog.records if "going on in one process" in record.message]) == 1
        # ... and so it stays.
        assert (await run_all(engine, [Upload(b"x", PutTarget(server.url("/later")), key=1)], []))[1].ok
        assert crew.pids == []


async def test_workers_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run does not notice."""
    monkeypatch.setattr("asyncsdk.engine.crew.processes._BOOTSTRAP", "raise SystemExit(3)")
    async with HttpServer() as server, Engine(CREW) as engine:
        crew = crew_of(engine)
        crew.start()
        outcomes = await run_all(
            engine, [Upload(b"x", PutTarget(server.url(f"/{number}")), key=number) for number in range(50)], []
        )
        assert all(outcome.ok for outcome in outcomes.values())
        await until(lambda: crew.is_alone)


async def test_refused_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that lets no process start is no reason to fail."""

    def refuse() -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("asyncsdk.engine.crew.processes._spawn", refuse)
    async with HttpServer() as server, Engine(CREW) as engine:
        crew = crew_of(engine)
        crew.start()
        await until(lambda: crew.is_alone)
        assert (await run_all(engine, [Upload(b"x", PutTarget(server.url("/1")), key=1)], []))[1].ok


# --- parents -------------------------------------------------------------------------------------------------

SCRIPT = """
import asyncio, os, sys
from asyncsdk.engine import Download, Engine, PutTarget, TransferConfig, Upload
from asyncsdk.errors import ForkedProcessError
from tests.support.crew import crew_of, until

async def main():
    url, folder = sys.argv[1:]
    engine = Engine(TransferConfig(processes=2))
    engine._open()
    crew = crew_of(engine)
    crew.start()
    await until(lambda: len(crew.pids) == 2)
    {body}

asyncio.run(main())
"""


def start(body: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a parent in a process of its own."""
    script = SCRIPT.format(body=textwrap.indent(textwrap.dedent(body), "    ").strip())
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


async def said(process: subprocess.Popen[str]) -> list[int]:
    """Return the numbers on the next line of what it says."""
    assert process.stdout is not None
    return [int(word) for word in (await asyncio.to_thread(process.stdout.readline)).split()]


async def test_no_worker_outlives_its_parent(tmp_path: Path) -> None:
    """A parent that is killed in the middle of transfers takes its workers along, and they remove their files."""
    body = """
        async with engine.run([Download(f"{url}/{n}", f"{folder}/{n}") for n in range(4)]) as outcomes:
            print(*crew.pids, flush=True)
            async for outcome in outcomes:
                pass
    """
    async with HttpServer() as server:
        begun = 0

        def half() -> Action:
            async def action(connection: Connection, request: Received) -> bool:
                nonlocal begun
                connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + bytes(1_000_000))
                begun += 1
                await asyncio.Event().wait()
                return True

            return action

        for number in range(4):
            server.script(f"/{number}", half())
        process = start(body, server.url(""), str(tmp_path))
        try:
            pids = await said(process)
            assert len(pids) == 2
            await until(lambda: begun == 4 and len(list(tmp_path.iterdir())) == 4)
            process.kill()
            await until(lambda: all(map(is_gone, pids)), 20)
            assert list(tmp_path.iterdir()) == []
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


async def test_parent_that_forks(tmp_path: Path) -> None:
    """The child cannot use the engine and keeps no worker alive; the parent goes on."""
    body = """
        child = os.fork()
        if child == 0:
            try:
                engine._open()
            except ForkedProcessError:
                os.write(1, f"{os.getpid()}\\n".encode())
            import time
            time.sleep(300)
            os._exit(0)
        report = await engine.collect([Upload(b"x", PutTarget(f"{url}/{n}")) for n in range(100)])
        print(*crew.pids, report.done, flush=True)
        await asyncio.sleep(300)
    """
    async with HttpServer() as server:
        process = start(body, server.url(""), str(tmp_path))
        child = 0
        try:
            lines = sorted([await said(process), await said(process)], key=len)
            (child,), (*pids, done) = lines
            assert done == 100
            assert len(pids) == 2
            process.kill()
            await until(lambda: all(map(is_gone, pids)), 20)
            assert not is_gone(child)
        finally:
            process.kill()
            process.wait()
            if child:
                os.kill(child, signal.SIGKILL)
            assert process.stdout is not None
            process.stdout.close()


def test_one_process_imports_nothing_of_it() -> None:
    """Without worker processes, there is not even their code."""
    script = """
        import asyncio, sys
        from asyncsdk.engine import Engine, TransferConfig
        async def main():
            async with Engine(TransferConfig()) as engine:
                assert (await engine.collect([])).objects == 0
        asyncio.run(main())
        assert [name for name in sys.modules if "crew" in name or name == "multiprocessing"] == []
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, check=True, timeout=60)
