"""Worker processes under everything else: the entity API, the blocking client, the command line."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import asyncsdk
from asyncsdk.cli import main
from asyncsdk.cli.exits import ExitCode
from asyncsdk.engine import MiB, TransferConfig
from tests.support.crew import crew_of, until
from tests.support.server import ServedProcess

CONFIG = TransferConfig(processes=2, concurrency=6, part_size=MiB, multipart_threshold=2 * MiB)
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedProcess]:
    """A platform of its own."""
    with ServedProcess(tmp_path / "data") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Many small files and some that are not."""
    dice = random.Random(3)
    folder = tmp_path / "photos"
    for number in range(300):
        path = folder / str(number % 7) / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(dice.choice([0, 10, 20_000, 70_000])))
    (folder / "large.bin").write_bytes(dice.randbytes(5 * MiB + 1))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return what is in all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_dataset_goes_up_and_comes_back(served: ServedProcess, folder: Path, tmp_path: Path) -> None:
    """Through workers, committed by the parent; running it again sends nothing."""
    async with asyncsdk.AsyncClient(served.url, token=served.token, config=CONFIG) as client:
        client.engine._open()
        crew = crew_of(client.engine)
        crew.start()
        await until(lambda: len(crew.pids) == 2)
        dataset = await client.datasets.create("photos")
        report = await dataset.upload(folder)
        assert (report.done, report.failed) == (301, 0)
        assert all(member is not None and member.folder for member in crew._members), "workers were given something"
        assert (await dataset.upload(folder)).done == 0
        report = await dataset.download(tmp_path / "back")
        assert (report.done, report.failed) == (301, 0)
        assert crew.pids
        assert not crew.is_alone
    assert contents(tmp_path / "back") == contents(folder)


def workers() -> set[int]:
    """Return the worker processes of this one."""
    found = set()
    for process in psutil.Process().children():
        try:
            if any("crew.worker" in word for word in process.cmdline()):
                found.add(process.pid)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue  # it has ended meanwhile
    return found


def test_blocking_client(served: ServedProcess, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in blocking calls; closing the client ends the workers."""
    monkeypatch.setattr("asyncsdk.engine.crew.crew.START_SECONDS", 0.0)
    assert not workers()
    with asyncsdk.Client(served.url, token=served.token, config=CONFIG) as client:
        dataset = client.datasets.create("photos")
        assert dataset.upload(folder).done == 301
        assert len(workers()) == 2
        child = os.fork()
        if child == 0:
            os._exit(0)  # what a child does is not this test's business; that the parent goes on is
        os.waitpid(child, 0)
        assert dataset.download(tmp_path / "back").done == 301
        assert len(workers()) == 2
    assert not workers()
    assert contents(tmp_path / "back") == contents(folder)


def test_command_line(
    served: ServedProcess, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """``--processes``, and what it may not be."""
    monkeypatch.setattr("asyncsdk.engine.crew.crew.START_SECONDS", 0.0)
    common = ["--url", served.url, "--token", served.token, "--json", "--processes", "2"]
    assert main(["upload", str(folder), "photos", "--create", *common]) == ExitCode.OK
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["summary"]["done"] == 301
    assert main(["download", "photos", str(tmp_path / "back"), *common]) == ExitCode.OK
    assert contents(tmp_path / "back") == contents(folder)
    assert not workers()
    capfd.readouterr()
    assert main(["upload", str(folder), "photos", *common[:-1], "0"]) == ExitCode.USAGE
    assert "processes must be a whole number of at least 1" in capfd.readouterr().err
