"""The soak (`benchmarks.soak`) in small: it ends well when all is well, and says so when it is not."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from asyncsdk import AsyncClient, AsyncDataset, Report
from asyncsdk.errors import ConnectionFailed, NotFound
from benchmarks.soak import faults
from benchmarks.soak_round import Round, Tally
from tests.support.faults.plan import Plan
from tests.support.server import RunningServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_soak_ends_well(tmp_path: Path) -> None:
    """Twenty seconds of everything through faults: nothing lost, nothing grows, nothing left behind."""
    parent, record = tmp_path / "parent", tmp_path / "record"
    parent.mkdir()
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.33", "--scale", "0.1", "--parent", str(parent)]
    reply = subprocess.run(
        [*command, "--record", str(record)], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert reply.returncode == 0, reply.stdout + reply.stderr
    assert reply.stdout.endswith("\n0 problems: ok\n")
    assert reply.stdout.count(" flat\n") == 8
    assert list(parent.iterdir()) == []
    assert all(json.loads(line)["rss_mib"] > 0 for line in record.read_text().splitlines())


@pytest.mark.parametrize("sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_its_servers(tmp_path: Path, sent: signal.Signals) -> None:
    """In the middle of a round; nothing is left behind."""
    parent = tmp_path / "parent"
    parent.mkdir()
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "5", "--scale", "0.1", "--parent", str(parent)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "load" in process.stdout.readline()
            assert process.stdout.readline().startswith("round    1")
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) >= 2
            process.send_signal(sent)
            assert process.wait(60) == 128 + sent
        finally:
            process.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert list(parent.iterdir()) == []


def test_faults_are_a_script_of_the_fault_server() -> None:
    """Every rule is one that it knows, and together they have the share that was asked for."""
    script = faults(0.2, 5)
    Plan.parse(script)
    assert sum(rule["probability"] for rule in script["rules"]) == pytest.approx(0.2)


async def test_a_round_finds_what_is_lost_wrong_and_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that loses a file, spoils another, and leaves a third one behind does not get by."""
    real = AsyncDataset.download

    async def spoiling(self: AsyncDataset, destination: Path) -> Report:
        report = await real(self, destination)
        (destination / "small/0000.bin").unlink()
        os.truncate(destination / "large.bin", 10)
        (destination / "small/.0001.part").write_bytes(b"")
        return report

    with RunningServer(tmp_path / "platform") as platform:
        async with AsyncClient(platform.url, token=platform.token) as client:
            tally = Tally()
            await Round(client, tally, tmp_path, 0, random.Random(1), 0.01).run(None)
            assert tally.problems == []
            assert tally.compared > 5
            monkeypatch.setattr(AsyncDataset, "download", spoiling)
            await Round(client, tally, tmp_path, 1, random.Random(1), 0.01).run(None)
            assert [problem.split(", ")[1].split(" such")[0] for problem in tally.problems] == [
                "down: 1 lost",
                "down: 1 left behind",
                "down: 1 wrong",
            ]
            # What stays is not deleted, and rounds leave no file.
            stays = await client.datasets.create("stays")
            await Round(client, tally, tmp_path, 2, random.Random(1), 0.01).run(stays)
            assert [dataset.name async for dataset in client.datasets.list()] == ["stays"]
    assert not (tmp_path / "files").exists()


async def test_what_may_be_repeated_is_and_the_rest_is_not() -> None:
    """Errors that may go away are counted and tried six times; others end the soak at once."""
    tally, calls = Tally(), 0

    async def fails(error: Exception) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        raise error

    with pytest.raises(ConnectionFailed):
        await tally.again("call", lambda: fails(ConnectionFailed("gone", "http://127.0.0.1")))
    assert (calls, tally.repeated.total()) == (6, 5)
    calls = 0
    with pytest.raises(NotFound):
        await tally.again("call", lambda: fails(NotFound("nothing there")))
    assert calls == 1
