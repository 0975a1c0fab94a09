"""All journals of a home: listed, shown, forgotten, tidied."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from asyncsdk.engine.journal import Identity, RunRecord, digest_of, journal_folder, schema
from asyncsdk.engine.journal.catalogue import forget, summaries, summary, tidy
from asyncsdk.engine.journal.claims import InUse
from asyncsdk.engine.journal.locks import RunLock, lock_path
from asyncsdk.engine.journal.owners import Owner
from asyncsdk.engine.journal.schema import SUFFIX
from asyncsdk.engine.journal.store import KnownPart, Store
from asyncsdk.errors import Conflict, JournalCorrupt, NotFound


def run_of(place: str, verb: str = "upload") -> RunRecord:
    return RunRecord(verb, {"place": place}, {"place": place})


def begin(home: Path, record: RunRecord, *, temporary: Path | None = None) -> Store:
    store = Store.open(journal_folder(home) / f"{record.run_id}{SUFFIX}", record)
    store.add([(digest_of(name), Identity(1, 2, 3), 4, b"") for name in "ab"])
    if temporary is not None:
        store.begin_large("big", {"unfinished": {"temporary": str(temporary)}})
        store.add_parts("big", [KnownPart(1, 10, 11)])
    return store


def test_runs_are_listed_with_what_they_are(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(home, run_of("/stopped")).release("stopped")
    running = begin(home, run_of("/running"), temporary=Path("/somewhere"))
    found = {run.arguments["place"]: run for run in summaries(journal_folder(home))}
    assert {place: run.state for place, run in found.items()} == {"/stopped": "stopped", "/running": "running"}
    assert found["/stopped"].owner == ""
    assert found["/running"].owner.endswith(f":{os.getpid()}")
    counted = [(run.objects, run.large, run.parts) for run in (found["/stopped"], found["/running"])]
    assert counted == [(2, 0, 0), (2, 1, 1)]
    monkeypatch.setattr(Owner, "is_gone", lambda owner, **facts: True)
    assert summary(journal_folder(home), run_of("/running").run_id).state == "killed"
    running.remove()


def test_a_run_goes_by_the_beginning_of_its_id(home: Path) -> None:
    one, other = run_of("/one"), run_of("/other", "download")
    begin(home, one).release("stopped")
    begin(home, other).release("stopped")
    folder = journal_folder(home)
    assert summary(folder, "down").run_id == other.run_id
    with pytest.raises(NotFound, match="journal list"):
        summary(folder, "checkpoint")
    begin(home, run_of("/third")).release("stopped")
    with pytest.raises(Conflict, match=one.run_id):
        summary(folder, "upload-")
    assert summary(folder, one.run_id).run_id == one.run_id


def test_forgetting_takes_the_half_received_files_along(home: Path, tmp_path: Path) -> None:
    half, whole = tmp_path / ".big.part", tmp_path / "whole"
    half.write_bytes(b"half")
    whole.write_bytes(b"whole")
    record = run_of("/one", "download")
    store = begin(home, record, temporary=half)
    with pytest.raises(Conflict, match="under way"):
        forget(journal_folder(home), record.run_id)
    assert half.exists()
    store.release("stopped")
    told = summary(journal_folder(home), record.run_id)
    assert (told.half_received, told.half_received_bytes) == (1, half.stat().st_blocks * 512)
    assert forget(journal_folder(home), record.run_id) == (record.run_id, 1, told.half_received_bytes)
    assert list(journal_folder(home).iterdir()) == []
    assert (half.exists(), whole.exists()) == (False, True)


def test_a_damaged_journal_is_not_listed_and_can_be_forgotten(home: Path) -> None:
    record = run_of("/one")
    begin(home, record).release("stopped")
    path = journal_folder(home) / f"{record.run_id}{SUFFIX}"
    path.write_bytes(b"x" * 5000)
    assert list(summaries(journal_folder(home))) == []
    with pytest.raises(JournalCorrupt, match="sets it aside"):
        summary(journal_folder(home), record.run_id)
    forget(journal_folder(home), record.run_id)
    assert list(journal_folder(home).iterdir()) == []


def test_what_nobody_wrote_to_for_a_month_is_tidied_away(home: Path, tmp_path: Path) -> None:
    half = tmp_path / ".big.part"
    half.write_bytes(b"half")
    old, new = run_of("/old"), run_of("/new")
    begin(home, old, temporary=half).release("stopped")
    begin(home, new).release("stopped")
    month_ago = time.time() - 31 * 24 * 3600
    for path in journal_folder(home).glob(f"{old.run_id}*"):
        os.utime(path, (month_ago, month_ago))
    tidy(journal_folder(home))
    assert [run.run_id for run in summaries(journal_folder(home))] == [new.run_id]
    assert not half.exists()


def test_a_lock_without_a_journal_does_not_stay(home: Path) -> None:
    """Damage found while a run went on, a run that ends while it is forgotten, a kill at a bad moment."""
    folder = journal_folder(home)
    path = folder / f"{run_of('/one').run_id}{SUFFIX}"
    store = begin(home, run_of("/one"))
    schema.set_aside(path, "damaged")
    assert lock_path(path).exists()
    store.close()
    assert not lock_path(path).exists()
    lock_path(path).touch()
    held = RunLock.take(folder / f"held{SUFFIX}")
    assert held is not None
    tidy(folder)
    assert [left.name for left in folder.glob("*-lock")] == [f"held{SUFFIX}-lock"]
    held.release()
    assert list(folder.glob("*-lock")) == []


def test_a_run_that_ends_while_it_is_forgotten_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = begin(home, run_of("/one"))
    take = RunLock.take

    def late(path: Path) -> RunLock | None:
        store.remove()
        return take(path)

    monkeypatch.setattr(RunLock, "take", late)
    with pytest.raises(NotFound, match="just ended"):
        forget(journal_folder(home), run_of("/one").run_id)
    assert list(journal_folder(home).iterdir()) == []


@pytest.mark.parametrize(
    "named",
    ["notes.part", "{folder}/notes.part", "{folder}/.notes", ".notes.part", 7, None, ["x"]],
    ids=["relative", "not hidden", "no part", "relative and hidden", "a number", "nothing", "a list"],
)
def test_nothing_that_cannot_be_ours_is_removed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: object
) -> None:
    """A path that an older release kept as it was given means another file in another folder."""
    monkeypatch.chdir(tmp_path)
    others = [tmp_path / name for name in ("notes.part", ".notes", ".notes.part")]
    for other in others:
        other.write_bytes(b"somebody's")
    record = run_of("/one", "download")
    store = begin(home, record)
    temporary = named.format(folder=tmp_path) if isinstance(named, str) else named
    store.begin_large("big", {"unfinished": {"temporary": temporary}})
    store.begin_large("odd", {"unfinished": "as nobody wrote it"})
    store.release("stopped")
    assert summary(journal_folder(home), record.run_id).half_received == 0
    assert forget(journal_folder(home), record.run_id).files == 0
    assert all(other.exists() for other in others)


def test_a_journal_that_is_busy_is_not_forgotten(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner may be putting a million entries in order: that is no damage."""
    monkeypatch.setattr(schema, "_BUSY_SECONDS", 0.05)
    record = run_of("/one", "download")
    begin(home, record).release("stopped")
    path = journal_folder(home) / f"{record.run_id}{SUFFIX}"
    with closing(sqlite3.connect(path, isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalCorrupt, match="locked"):
            forget(journal_folder(home), record.run_id)
        busy.execute("ROLLBACK")
    assert path.exists()
    forget(journal_folder(home), record.run_id)
    assert not path.exists()


def test_nobody_takes_up_a_run_that_is_being_forgotten(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor goes on with half-received files that are being removed; afterwards there is a journal of its own."""
    half = tmp_path / ".big.part"
    half.write_bytes(b"half")
    record = run_of("/one", "download")
    begin(home, record, temporary=half).release("stopped")
    path = journal_folder(home) / f"{record.run_id}{SUFFIX}"
    refused: list[str] = []
    unlink = Path.unlink

    def unlink_and_look(file: Path, missing_ok: bool = False) -> None:
        if file == half:
            with pytest.raises(InUse) as caught:
                Store.open(path, record)
            refused.append(str(caught.value))
        unlink(file, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_and_look)
    assert forget(journal_folder(home), record.run_id).files == 1
    assert refused == ["another run keeps it"]
    store = Store.open(path, record)
    assert (store.has_entries, store.large("big"), path.exists()) == (False, None, True)
    store.add([(digest_of("a"), Identity(1, 2, 3), 4, b"")])
    store.release("stopped")
    assert summary(journal_folder(home), record.run_id).objects == 1
    assert list(journal_folder(home).glob("*damaged*")) == []


def age(home: Path) -> None:
    """Let all journals be of long ago."""
    for path in journal_folder(home).iterdir():
        os.utime(path, (1, 1))


def test_a_file_that_cannot_be_tidied_away_is_no_matter_of_others(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / ".big.part"
    half.write_bytes(b"half")
    old = run_of("/old")
    begin(home, old, temporary=half).release("stopped")
    age(home)
    unlink = Path.unlink

    def refuse(file: Path, missing_ok: bool = False) -> None:
        if file == half:
            raise PermissionError(13, "Permission denied")
        unlink(file, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        tidy(journal_folder(home))
    assert [run.run_id for run in summaries(journal_folder(home))] == [old.run_id]
    age(home)  # looking at it has made its log anew
    tidy(journal_folder(home))
    assert (list(journal_folder(home).iterdir()), half.exists()) == ([], False)
