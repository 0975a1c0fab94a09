"""A journal as a run uses it: made late, kept without waiting, forgotten when nothing is left to know."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.engine.journal import Finished, Identity, Journal, RunRecord, digest_of, journal_folder
from asyncsdk.engine.journal import owners as owners_module
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.engine.journal.owners import FOREIGN_SECONDS, Owner
from asyncsdk.engine.journal.schema import SCHEMA_VERSION, SUFFIX
from asyncsdk.engine.journal.sorting import TakingUp
from asyncsdk.engine.journal.store import InUse, Store
from asyncsdk.errors import ConfigError

RUN = RunRecord("upload", {"place": "/photos", "dataset": "d"}, {"place": "/photos"})
IDENTITY = Identity(5, 1_700_000_000_000_000_000, 42)


def path_of(home: Path, record: RunRecord = RUN) -> Path:
    return journal_folder(home) / f"{record.run_id}{SUFFIX}"


def described(things: Sequence[Any]) -> Iterable[Finished]:
    return [(digest_of(name), IDENTITY, 7, b"receipt") for name in things]


async def kept(home: Path, names: list[str], *, settled: list[str] | None = None) -> Journal:
    """Return an open journal that holds *names*."""
    journal = await Journal.open(home, RUN)
    journal.describe_by(described, notes_are_final=False)
    for name in names:
        journal.note(name)
    await journal.flush()
    journal.settle([digest_of(name) for name in settled or ()])
    return journal


async def test_nothing_is_made_before_there_is_something_to_keep(home: Path) -> None:
    journal = await Journal.open(home, RUN)
    assert not journal.has_entries
    assert await journal.find(["a"]) == {}
    await journal.end(is_complete=False)
    assert not journal_folder(home).exists()


async def test_a_run_that_is_complete_at_once_leaves_and_makes_nothing(home: Path) -> None:
    journal = await Journal.open(home, RUN)
    journal.describe_by(described, notes_are_final=True)
    journal.note("a")
    await journal.end(is_complete=True)
    assert not journal_folder(home).exists()


async def test_what_was_kept_is_known_to_the_same_call(home: Path) -> None:
    journal = await kept(home, ["a", "b"], settled=["a"])
    await journal.end(is_complete=False)
    journal = await Journal.open(home, RUN)
    assert journal.has_entries
    found = await journal.find(["a", "b", "c"])
    assert {name: entry.is_settled for name, entry in found.items()} == {"a": True, "b": False}
    assert {(entry.identity, entry.crc32c, entry.receipt) for entry in found.values()} == {(IDENTITY, 7, b"receipt")}
    await journal.end(is_complete=True)
    assert list(journal_folder(home).iterdir()) == []


async def test_what_a_later_session_made_final_is_final(home: Path) -> None:
    """Whether it brought it again or not; and of what was brought twice the later one counts."""
    await (await kept(home, ["a", "b", "c"])).end(is_complete=False)
    journal = await Journal.open(home, RUN)
    journal.describe_by(lambda things: [(digest_of(name), IDENTITY, 8, b"") for name in things], notes_are_final=False)
    journal.note("b")
    await journal.flush()
    journal.settle([digest_of("a"), digest_of("d")])
    await journal.end(is_complete=False)
    journal = await Journal.open(home, RUN)
    found = await journal.find(["a", "b", "c", "d"])
    assert {name: (entry.crc32c, entry.is_settled) for name, entry in found.items()} == {
        "a": (7, True),
        "b": (8, False),
        "c": (7, False),
    }
    await journal.end(is_complete=True)


async def test_taking_up_is_told_and_can_be_cancelled(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before it is put in order it is told how much that is. Who gives up waiting changes nothing, and leaves the
    journal to the next call, in this process or another."""
    names = [f"{number}.jpg" for number in range(3000)]
    await (await kept(home, names, settled=names[:10])).end(is_complete=False)
    told: list[int] = []
    begin = TakingUp.begin

    def begin_slowly(taking_up: TakingUp, count: int) -> None:
        begin(taking_up, count)
        while not taking_up.is_cancelled:
            time.sleep(0.001)

    with monkeypatch.context() as patched:
        patched.setattr(TakingUp, "begin", begin_slowly)
        opening = asyncio.create_task(Journal.open(home, RUN, on_begin=told.append))
        while not told:
            await asyncio.sleep(0.001)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert told == [3000]
    assert caplog.records == []
    (found,) = summaries(journal_folder(home))
    assert (found.state, found.objects) == ("stopped", 3000)
    journal = await Journal.open(home, RUN, on_begin=told.append)
    assert told == [3000, 3000]
    entries = await journal.find(names)
    assert len(entries) == 3000
    assert sum(entry.is_settled for entry in entries.values()) == 10
    await journal.end(is_complete=False)
    journal = await Journal.open(home, RUN, on_begin=told.append)
    assert told == [3000, 3000]  # it is in order already
    await journal.end(is_complete=True)


async def test_another_call_knows_nothing_of_it(home: Path) -> None:
    await (await kept(home, ["a"])).end(is_complete=False)
    other = await Journal.open(home, RunRecord("upload", {"place": "/photos", "dataset": "e"}))
    assert not other.has_entries
    await other.end(is_complete=False)


async def test_what_is_noted_is_written_without_anybody_waiting(home: Path) -> None:
    """A kill some moments after an object arrived finds it in the file."""
    journal = await Journal.open(home, RUN)
    journal.describe_by(described, notes_are_final=True)
    journal.note("a")
    async with asyncio.timeout(30):
        while not path_of(home).exists() or not _count(path_of(home)):
            await asyncio.sleep(0.01)
    await journal.end(is_complete=False)


def _count(path: Path) -> int:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT coalesce(sum(count), 0) FROM pages").fetchone()[0])
    except sqlite3.OperationalError:  # being made
        return 0
    finally:
        connection.close()


async def test_large_objects_and_their_parts_are_known_again(home: Path) -> None:
    journal = await Journal.open(home, RUN)
    state = journal.new_large("big", {"key": "k"})
    resume = state.resume()
    assert (resume.upload_id, resume.parts) == ("", ())
    assert resume.on_begin is not None
    resume.on_begin("U1", 1000)
    state.received().add(3, 10, 77)
    await journal.end(is_complete=False)
    journal = await Journal.open(home, RUN)
    assert await journal.begun(["small", "big"]) == ["big"]
    state = await journal.recall_large("big")
    assert state.facts == {"key": "k", "upload_id": "U1", "part_size": 1000}
    assert [(part.number, part.size_bytes, part.crc32c) for part in state.resume().parts] == [(3, 10, "0000004d")]
    state.forget()
    await journal.flush()
    assert (await journal.recall_large("big")).facts == {}
    await journal.end(is_complete=True)


async def test_folder_and_files_are_for_their_owner_alone(home: Path) -> None:
    before = os.umask(0)
    try:
        journal = await kept(home, ["a"])
    finally:
        os.umask(before)
    assert stat.S_IMODE(journal_folder(home).stat().st_mode) == 0o700
    for path in journal_folder(home).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    await journal.end(is_complete=True)


# --- whose it is ---------------------------------------------------------------------------------------------


async def test_a_second_run_of_the_same_call_keeps_none_and_disturbs_nothing(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = await kept(home, ["a"])
    with caplog.at_level(logging.INFO, "asyncsdk.journal"):
        second = await kept(home, ["b"])
    assert not second.is_kept
    assert "this run keeps no journal" in caplog.text
    await second.end(is_complete=True)
    await first.end(is_complete=False)
    again = await Journal.open(home, RUN)
    assert set(await again.find(["a", "b"])) == {"a"}
    await again.end(is_complete=True)


@pytest.mark.parametrize(
    ("owner", "silent_seconds", "is_gone"),
    [
        ({}, 0, False),
        ({"pid": 2**22 + 1}, 0, True),
        ({"started": 1}, 0, True),
        ({"boot": "another"}, 0, True),
        ({"host": "elsewhere"}, FOREIGN_SECONDS - 1, False),
        ({"host": "elsewhere"}, FOREIGN_SECONDS + 1, True),
    ],
)
def test_an_owner_is_gone_when_its_process_is(owner: dict[str, Any], silent_seconds: float, is_gone: bool) -> None:
    me = Owner.me()
    values = {"host": me.host, "pid": me.pid, "started": me.started, "boot": me.boot} | owner
    if "pid" in owner:
        values["started"] = 0
    assert Owner(**values).is_gone(silent_seconds=silent_seconds) is is_gone


async def test_a_process_of_the_same_number_is_another_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of processes come back: what tells them apart is when they started."""
    monkeypatch.setattr(owners_module, "_started", lambda pid: 1)
    store = Store.open(path_of(home), RUN)
    with pytest.raises(InUse):
        Store.open(path_of(home), RUN)
    monkeypatch.setattr(owners_module, "_started", lambda pid: 2)
    other = Store.open(path_of(home), RUN)
    other.remove()
    store.close()


# --- what cannot be kept -------------------------------------------------------------------------------------


async def test_a_damaged_journal_is_set_aside_once_and_a_new_one_kept(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await (await kept(home, ["a"])).end(is_complete=False)
    path_of(home).write_bytes(b"something else entirely" * 1000)
    journal = await kept(home, ["b"])
    assert not journal.has_entries
    assert journal.is_kept
    await journal.end(is_complete=False)
    assert caplog.text.count("was set aside") == 1
    assert len(list(journal_folder(home).glob("*.damaged-*"))) == 1
    again = await Journal.open(home, RUN)
    assert set(await again.find(["a", "b"])) == {"b"}
    await again.end(is_complete=True)


async def test_of_damaged_journals_three_are_kept(home: Path) -> None:
    for _ in range(5):
        await (await kept(home, ["a"])).end(is_complete=False)
        path_of(home).write_bytes(b"something else entirely" * 1000)
    await (await kept(home, ["a"])).end(is_complete=True)
    assert len(list(journal_folder(home).glob("*.damaged-*"))) == 3


async def test_damage_while_it_is_kept_ends_the_journal_and_not_the_run(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await (await kept(home, [str(number) for number in range(2000)])).end(is_complete=False)
    journal = await Journal.open(home, RUN)
    size = path_of(home).stat().st_size
    with path_of(home).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    os.truncate(path_of(home).with_name(f"{path_of(home).name}-wal"), 0)
    found = await journal.find([str(number) for number in range(2000)])
    assert all(entry.crc32c == 7 for entry in found.values())
    journal.note("x")
    await journal.flush()
    await journal.end(is_complete=True)


async def test_a_home_that_cannot_be_written_is_said_once(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    home.mkdir(parents=True)
    journal_folder(home).write_bytes(b"a file where the folder should be")
    journal = await kept(home, ["a"])
    journal.note("b")
    await journal.flush()
    assert not journal.is_kept
    assert await journal.find(["a"]) == {}
    await journal.end(is_complete=True)
    assert caplog.text.count("cannot be kept") == 1


async def test_a_journal_of_a_later_release_is_told_and_left_alone(home: Path) -> None:
    await (await kept(home, ["a"])).end(is_complete=False)
    connection = sqlite3.connect(path_of(home))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.execute("DROP TABLE run")
    connection.commit()
    connection.close()
    before = path_of(home).read_bytes()
    with pytest.raises(ConfigError, match=r"later release.*journal forget"):
        await Journal.open(home, RUN)
    assert path_of(home).read_bytes() == before


def test_the_same_call_has_the_same_name_and_no_other() -> None:
    same = RunRecord("upload", {"dataset": "d", "place": "/photos"}, {"anything": "else"})
    assert same.run_id == RUN.run_id
    others = [RunRecord("download", RUN.identity), RunRecord("upload", {**RUN.identity, "place": "/photos/"})]
    assert RUN.run_id not in {other.run_id for other in others}
    assert RunRecord("upload", {"place": "/\udcff"}).run_id  # the bytes of a name that is no Unicode


def test_receipts_keep_their_length() -> None:
    """Receipts of a page are filled up with zeros; those that end with some come back as they were."""
    from asyncsdk.engine.journal.entries import pack_page, read_row, rows_of_page

    receipts = [b"", b"\0", b"ab\0\0", b"abcdefgh"]
    page = pack_page([(bytes([number] * 8), IDENTITY, 1, receipt) for number, receipt in enumerate(receipts)], boot=9)
    entries = [read_row(key, row, is_settled=False) for key, row in rows_of_page(page)]
    assert [entry.receipt for entry in entries if entry is not None] == receipts
    with pytest.raises(ValueError, match="at most"):
        pack_page([(b"12345678", IDENTITY, 1, b"x" * 2000)], boot=9)


@pytest.mark.parametrize("is_complete", [False, True])
async def test_a_journal_is_given_up_however_often_its_run_is_cancelled(home: Path, is_complete: bool) -> None:
    """While what was noted is still being written, too: else nobody in this process could keep it again."""
    journal = await Journal.open(home, RUN)
    may_go_on = threading.Event()

    def describe_late(things: Sequence[Any]) -> Iterable[Finished]:
        may_go_on.wait(30)
        return described(things)

    journal.describe_by(describe_late, notes_are_final=False)
    journal.note("a")
    ending = asyncio.create_task(_flushed_and_ended(journal, is_complete))
    await asyncio.sleep(0.05)
    for _ in range(3):
        ending.cancel()
        await asyncio.sleep(0.02)
    assert not ending.done()
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert [run.state for run in summaries(journal_folder(home))] == ([] if is_complete else ["stopped"])
    again = await Journal.open(home, RUN)
    assert again.is_kept
    assert again.has_entries is not is_complete
    await again.end(is_complete=True)


async def _flushed_and_ended(journal: Journal, is_complete: bool) -> None:
    try:
        await journal.flush()
    finally:
        await journal.end(is_complete=is_complete)


async def test_a_journal_of_a_later_release_leaves_no_thread_behind(home: Path) -> None:
    await (await kept(home, ["a"])).end(is_complete=False)
    connection = sqlite3.connect(path_of(home))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.execute("DROP TABLE run")
    connection.commit()
    connection.close()
    before = threading.active_count()
    with pytest.raises(ConfigError, match="later release"):
        await Journal.open(home, RUN)
    async with asyncio.timeout(20):
        while threading.active_count() > before:
            await asyncio.sleep(0.01)
