"""A journal as a run uses it: made late, kept without waiting, forgotten when nothing is left to know."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.engine.journal import Finished, Identity, Journal, RunRecord, digest_of, journal_folder
from asyncsdk.engine.journal import journal as journal_module
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.engine.journal.schema import SCHEMA_VERSION, SUFFIX
from asyncsdk.engine.journal.sorting import TakingUp
from asyncsdk.engine.parted.state import SentPart
from asyncsdk.engine.received import Unfinished
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


@pytest.mark.parametrize("state", ["stopped", "failed"])
async def test_a_run_of_which_nothing_is_known_leaves_nothing(home: Path, state: str) -> None:
    """However it ended: it was begun for what a kill would have left, and nobody was killed."""
    journal = await Journal.open(home, RUN)
    await journal.begin()
    assert path_of(home).exists()
    await journal.end(is_complete=False, state=state)
    assert list(journal_folder(home).iterdir()) == []


async def test_a_run_stays_of_which_something_may_have_to_be_known(home: Path) -> None:
    """A large object; when it began, if files are told by that; and whatever an earlier process began."""
    journal = await Journal.open(home, RUN)
    journal.begin_large("a", {"key": "k"})
    await journal.end(is_complete=False)
    assert path_of(home).exists()
    journal = await Journal.open(home, RUN)
    journal.end_large("a")
    await journal.end(is_complete=False)
    assert path_of(home).exists()
    path_of(home).unlink()
    journal = await Journal.open(home, RUN)
    await journal.begin()
    journal.stays_when_empty = True
    await journal.end(is_complete=False)
    assert path_of(home).exists()


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


async def test_before_an_object_is_made_its_parts_are_on_the_disk(home: Path) -> None:
    """A commit that syncs the log comes after the last part, and before whoever flushes goes on; others do not wait."""
    journal = await Journal.open(home, RUN)
    resume = journal.new_large("big", {"key": "k"}).resume()
    assert resume.on_begin is not None
    assert resume.on_part is not None
    assert resume.flush is not None
    resume.on_begin("U1", 1000)
    await journal.flush()
    assert journal._store is not None
    said: list[str] = []
    journal._store._connection.set_trace_callback(said.append)
    resume.on_part(SentPart(1, 1000, "0000004d"))
    await resume.flush()
    then, told = list(said), [one.partition(" ")[0] for one in said]
    part, full, normal = told.index("INSERT"), _index(then, "FULL"), _index(then, "NORMAL")
    assert part < full < full + 1 + told[full + 1 :].index("UPDATE") < normal
    assert told[full:normal].count("COMMIT") == 1
    journal._store._connection.set_trace_callback(None)
    assert await journal._do(lambda store: store._connection.execute("PRAGMA synchronous").fetchone()[0]) == 1
    await journal.end(is_complete=True)


def _index(statements: list[str], ending: str) -> int:
    return next(number for number, text in enumerate(statements) if text.endswith(f"synchronous = {ending}"))


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
    with caplog.at_level(logging.WARNING, "asyncsdk.journal"):
        second = await kept(home, ["b"])
    assert not second.is_kept
    assert "this run keeps no journal" in caplog.text
    await second.end(is_complete=True)
    await first.end(is_complete=False)
    again = await Journal.open(home, RUN)
    assert set(await again.find(["a", "b"])) == {"a"}
    await again.end(is_complete=True)


async def test_a_journal_whose_owner_ended_is_kept_from_then_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The second run says at once, visibly, that it keeps none, tries again, and says when it does."""
    monkeypatch.setattr(journal_module, "_AGAIN_SECONDS", 0.01)
    told: list[tuple[bool, str]] = []
    first = await kept(home, ["a"])
    second = await Journal.open(home, RUN, on_change=lambda is_kept, why: told.append((is_kept, why)))
    second.describe_by(described, notes_are_final=True)
    reason = f"process {os.getpid()} on {socket.gethostname()} keeps it; this run keeps no journal"
    assert told == [(False, reason)]
    second.note("b")  # while there is nowhere to keep it
    await second.flush()
    large = second.new_large("big", {"key": "k"}).received()
    large.add(1, 10, 77)
    await asyncio.sleep(0.1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    await first.end(is_complete=False)
    async with asyncio.timeout(30):
        while len(told) < 2:
            await asyncio.sleep(0.01)
    assert told[1][0]
    assert second.is_kept
    second.note("c")
    large.add(2, 10, 78)
    await second.end(is_complete=False)
    again = await Journal.open(home, RUN)
    assert set(await again.find(["a", "b", "c"])) == {"a", "c"}
    state = await again.recall_large("big")
    assert (state.facts, sorted(state.parts)) == ({"key": "k"}, [1, 2]), "what was told meanwhile is there, too"
    await again.end(is_complete=True)


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


def fill_the_disk(journal: Journal) -> None:
    """Let SQLite find the disk full, for this connection."""
    store = journal._store
    assert store is not None
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")


MANY = [str(number) for number in range(5000)]


async def test_a_full_disk_ends_the_journal_for_a_minute_and_not_for_the_night(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal_module, "_AGAIN_SECONDS", 0.05)
    journal = await kept(home, ["a"])
    fill_the_disk(journal)
    for name in MANY:
        journal.note(name)
    await journal.flush()
    async with asyncio.timeout(30):
        while "is kept again" not in caplog.text:
            await asyncio.sleep(0.01)
    assert caplog.text.count("database or disk is full") == 1
    journal.note("b")
    await journal.end(is_complete=False, state="failed")
    assert [run.state for run in summaries(journal_folder(home))] == ["failed"]
    again = await Journal.open(home, RUN)
    assert set(await again.find(["a", "b", "1"])) == {"a", "b"}
    await again.end(is_complete=True)


async def test_a_file_that_is_left_after_the_disk_was_full_can_be_found(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was begun while nothing could be kept, and no range arrived since; nobody else would ever remove it."""
    monkeypatch.setattr(journal_module, "_AGAIN_SECONDS", 0.05)
    journal = await kept(home, ["a"])
    fill_the_disk(journal)
    for name in MANY:
        journal.note(name)
    await journal.flush()
    received = journal.new_large("big", {}).received()
    received.begin(Unfinished(str(tmp_path / ".big.part"), 20, 10, '"e"', None))
    received.add(1, 10, 77)
    assert not received.may_leave
    async with asyncio.timeout(30):
        while "is kept again" not in caplog.text:
            await asyncio.sleep(0.01)
    assert received.may_leave
    await journal.end(is_complete=False)
    again = await Journal.open(home, RUN)
    assert await again.half_received() == {str(tmp_path / ".big.part")}
    assert sorted((await again.recall_large("big")).parts) == [1]
    await again.end(is_complete=True)


@pytest.mark.parametrize("is_complete", [False, True])
async def test_what_is_half_received_goes_with_the_journal(home: Path, tmp_path: Path, is_complete: bool) -> None:
    """Of an object that failed in a run that is forgotten all the same, or that nobody asks for any more."""
    half = tmp_path / ".big.asyncsdk-0.part"
    half.touch()
    journal = await kept(home, ["a"])
    journal.new_large("big", {}).received().begin(Unfinished(str(half), 20, 10, '"e"', None))
    await journal.end(is_complete=is_complete)
    assert half.exists() is not is_complete


@pytest.mark.parametrize("is_complete", [False, True])
async def test_a_journal_that_was_given_up_is_given_up_at_the_end_too(home: Path, is_complete: bool) -> None:
    """Else this process would hold it until it ends, or the next run believe what is too old."""
    journal = await kept(home, ["a"])
    fill_the_disk(journal)
    for name in MANY:
        journal.note(name)
    await journal.flush()
    assert not journal.is_kept
    await journal.end(is_complete=is_complete)
    assert [run.state for run in summaries(journal_folder(home))] == ([] if is_complete else ["stopped"])
    if is_complete:
        assert list(journal_folder(home).iterdir()) == []
    again = await Journal.open(home, RUN)
    assert again.is_kept
    assert again.has_entries is not is_complete
    await again.end(is_complete=True)


async def test_while_a_journal_is_given_up_others_may_have_it(home: Path) -> None:
    journal = await kept(home, ["a"])
    fill_the_disk(journal)
    for name in MANY:
        journal.note(name)
    await journal.flush()
    other = await Journal.open(home, RUN)
    assert other.is_kept
    await journal.end(is_complete=True)  # another's by now: left alone
    assert path_of(home).exists()
    await other.end(is_complete=True)


async def test_a_file_of_a_time_that_cannot_be_kept_is_no_matter_of_others(home: Path) -> None:
    """After the year 2262 the nanoseconds since 1970 have no place in 64 bits."""
    journal = await Journal.open(home, RUN)
    late = Identity(5, 2**63, 42)
    journal.describe_by(
        lambda things: [(digest_of(name), late if name == "late" else IDENTITY, 7, b"") for name in things],
        notes_are_final=True,
    )
    for name in ("a", "late", "b"):
        journal.note(name)
    await journal.flush()
    assert journal.is_kept
    await journal.end(is_complete=False)
    again = await Journal.open(home, RUN)
    assert set(await again.find(["a", "late", "b"])) == {"a", "b"}
    await again.end(is_complete=True)


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
    from asyncsdk.engine.journal.entries import key_of_digest, pack_page, read_row, records_of_page, row_of_record

    receipts = [b"", b"\0", b"ab\0\0", b"abcdefgh"]
    page = pack_page([(bytes([number] * 8), IDENTITY, 1, receipt) for number, receipt in enumerate(receipts)], boot=9)
    records = list(records_of_page(page))
    entries = [read_row(key_of_digest(record[:8]), row_of_record(record), is_settled=False) for record in records]
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
