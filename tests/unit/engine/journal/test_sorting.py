"""Taking up what was written page by page: in order afterwards, whatever their number, and ended at any moment."""

from __future__ import annotations

import asyncio
import errno
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import pytest

from asyncsdk.engine.journal import Identity, Journal, RunRecord, digest_of, heaps, journal_folder
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.engine.journal.heaps import Heaps
from asyncsdk.engine.journal.schema import SUFFIX
from asyncsdk.engine.journal.store import Store

RUN = RunRecord("upload", {"place": "/photos"}, {"place": "/photos"})


def path_of(home: Path) -> Path:
    return journal_folder(home) / f"{RUN.run_id}{SUFFIX}"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where temporary files were made; where they go by themselves there is no place for any."""
    made: list[Path] = []
    make = tempfile.TemporaryFile

    def noted(*, dir: Path, buffering: int) -> IO[bytes]:
        made.append(dir)
        return make(dir=dir, buffering=buffering)

    monkeypatch.setattr(tempfile, "TemporaryFile", noted)
    for name in ("TMPDIR", "SQLITE_TMPDIR"):
        monkeypatch.setenv(name, "/nowhere")
    return made


@pytest.mark.parametrize(("in_memory", "many"), [(10**6, 10**9), (10, 10**9), (10, 100)], ids=["one", "256", "4096"])
def test_any_number_is_in_order_afterwards(
    home: Path, monkeypatch: pytest.MonkeyPatch, files: list[Path], in_memory: int, many: int
) -> None:
    """Receipts of any length; what came twice, what became final in the same session, in a later one, or never."""
    monkeypatch.setattr(heaps, "_IN_MEMORY", in_memory)
    monkeypatch.setattr(heaps, "_MANY", many)
    monkeypatch.setattr(heaps, "_HELD_BYTES", 10_000)
    rng = random.Random(in_memory + many)
    names = [f"{number}.jpg" for number in range(2000)]
    known: dict[str, tuple[int, bytes]] = {}
    final: set[str] = set()
    for session in range(3):
        store = Store.open(path_of(home), RUN)
        fresh: set[str] = set()
        settled: set[str] = set()
        for _ in range(8):
            page = rng.sample(names, rng.randint(1, 400))
            are_final = rng.random() < 0.3
            version = rng.getrandbits(32)
            entries = [
                (digest_of(name), Identity(1, 2, 3), version, rng.randbytes(rng.randint(0, 60))) for name in page
            ]
            store.add(entries, are_final=are_final)
            known |= {name: (version, entry[3]) for name, entry in zip(page, entries, strict=True)}
            later = rng.sample(names, 50)
            store.add([], settled=[digest_of(name) for name in later])
            fresh |= set(page)
            settled |= set(later) | (set(page) if are_final else set())
        final = (final - fresh) | (settled & set(known))
        store.release("stopped")
        assert len(files) == (session if in_memory < 1000 else 0)  # what the sessions before brought
    assert set(files) <= {journal_folder(home)}
    store = Store.open(path_of(home), RUN)
    found = store.find(names)
    assert {name: (entry.crc32c, entry.receipt) for name, entry in found.items()} == known
    assert {name for name, entry in found.items() if entry.is_settled} == final
    keys = [key for (key,) in store._connection.execute("SELECT key FROM entries")]
    assert keys == sorted(keys)
    store.remove()
    assert list(journal_folder(home).iterdir()) == []


def test_heaps_follow_each_other_in_the_order_of_their_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heaps, "_IN_MEMORY", 10)
    rng = random.Random(1)
    digests = [rng.randbytes(8) for _ in range(3000)]
    with Heaps(tmp_path, len(digests)) as dealt:
        dealt.add(digests, is_marked=True)
        keys = [
            [int.from_bytes(record, "little", signed=True) for record, _ in dealt.take(number)]
            for number in range(dealt.count)
        ]
    assert sum(map(len, keys)) == 3000
    assert [key for heap in keys for key in sorted(heap)] == sorted(key for heap in keys for key in heap)
    assert max(map(len, keys)) < 60


def described(things: Iterable[Any]) -> Any:
    return [(digest_of(name), Identity(1, 2, 3), 7, b"receipt") for name in things]


async def left_behind(home: Path, count: int) -> None:
    journal = await Journal.open(home, RUN)
    journal.describe_by(described, notes_are_final=True)
    for number in range(count):
        journal.note(f"{number}.jpg")
    await journal.end(is_complete=False)


async def test_no_room_to_sort_is_said_and_changes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await left_behind(home, 500)

    def full(dealt: Heaps) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(heaps, "_IN_MEMORY", 10)
        patched.setattr(heaps, "_HELD_BYTES", 10)
        patched.setattr(Heaps, "_write", full)
        journal = await Journal.open(home, RUN)
        assert not journal.is_kept
        await journal.end(is_complete=False)
    assert caplog.text.count("No space left on device") == 1
    journal = await Journal.open(home, RUN)
    assert len(await journal.find([f"{number}.jpg" for number in range(500)])) == 500
    await journal.end(is_complete=True)


async def test_a_check_of_the_whole_file_can_be_cancelled(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one step for SQLite, which asks nobody meanwhile: an interruption from another thread ends it."""
    await left_behind(home, 10)
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    went_through: list[bool] = []

    def check_for_long(store: Store, taking_up: object) -> None:
        loop.call_soon_threadsafe(begun.set)
        numbers = (
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100000000) SELECT count(*) FROM c"
        )
        store._connection.execute(numbers).fetchone()
        went_through.append(True)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "_look_back", check_for_long)
        opening = asyncio.create_task(Journal.open(home, RUN))
        await begun.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert went_through == []
    assert [(run.state, run.objects) for run in summaries(journal_folder(home))] == [("stopped", 10)]
