"""What a killed process left is removed, but not what any run of it can go on with."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from asyncsdk.engine.journal import Clearing, Journal, RunRecord, journal_folder
from asyncsdk.engine.journal.schema import SUFFIX

ONE = RunRecord("download", {"place": "/one"}, {"place": "/one"})
OTHER = RunRecord("download", {"place": "/other"}, {"place": "/other"})

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from asyncsdk.engine.journal import Journal, RunRecord
from asyncsdk.engine.received import Unfinished
from asyncsdk.engine.temporaries import temporary_name

async def main(home: Path, folder: Path) -> None:
    (folder / temporary_name("small")).touch()
    for place in ("one", "other"):
        journal = await Journal.open(home, RunRecord("download", {"place": f"/{place}"}, {"place": f"/{place}"}))
        await journal.begin()
        half = folder / temporary_name(place)
        half.write_bytes(b"x")
        journal.new_large(place, {}).received().begin(Unfinished(str(half), 2, 1, None, "00000000"))
        await journal.flush()
        print(half.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


@pytest.fixture
def left(home: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder two runs of one killed process downloaded to, and the names of their half-received files."""
    folder = tmp_path / "copy"
    folder.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(home), str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(list(folder.iterdir())) == 3
    return folder, ended.stdout.split()


async def test_what_another_run_can_go_on_with_stays(home: Path, left: tuple[Path, list[str]]) -> None:
    """One process downloaded twice to one folder: the first run to go on does not take the other's file away."""
    folder, half_received = left
    journal = await Journal.open(home, ONE)
    try:
        await Clearing(journal).clear([folder / "x"])
        assert sorted(path.name for path in folder.iterdir()) == sorted(half_received)
    finally:
        await journal.end(is_complete=True)


async def test_nothing_is_removed_when_nobody_can_say_what_is_gone_on_with(
    home: Path, left: tuple[Path, list[str]]
) -> None:
    """The journal of the other run is of a later release."""
    folder, _ = left
    with closing(sqlite3.connect(journal_folder(home) / f"{OTHER.run_id}{SUFFIX}")) as connection:
        connection.execute("DROP TABLE run")
        connection.execute("PRAGMA user_version = 99")
        connection.commit()
    journal = await Journal.open(home, ONE)
    try:
        await Clearing(journal).clear([folder / "x"])
        assert len(list(folder.iterdir())) == 3
    finally:
        await journal.end(is_complete=True)


async def test_a_damaged_journal_of_another_run_keeps_nothing(home: Path, left: tuple[Path, list[str]]) -> None:
    folder, half_received = left
    other = journal_folder(home) / f"{OTHER.run_id}{SUFFIX}"
    for path in other.parent.glob(f"{other.name}-wal"):
        path.unlink()
    other.write_bytes(b"no journal" * 1000)
    journal = await Journal.open(home, ONE)
    try:
        await Clearing(journal).clear([folder / "x"])
        assert [path.name for path in folder.iterdir()] == half_received[:1]
    finally:
        await journal.end(is_complete=True)
