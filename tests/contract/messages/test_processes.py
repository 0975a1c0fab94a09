"""Several processes on one folder, crashes half-way, and the sweep that cleans up after them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.errors import NotFound
from asyncsdk.platforms.embedded import EmbeddedPlatform
from asyncsdk.platforms.rest import RestPlatform
from asyncsdk.protocol.datasets import CreateDataset, DeleteDataset, GetDataset
from asyncsdk.protocol.items import DeleteItems
from asyncsdk.protocol.predictions import (
    CommitPredictionParts,
    CreatePredictionTask,
    PrepareRowParts,
    RowPart,
    SentRowPart,
)
from asyncsdk.protocol.uploads import CommitUploads, PrepareUploads, RenewEntry, RenewUploads, UploadEntry
from asyncsdk.server import backend as backend_module
from asyncsdk.server.backend import Backend
from asyncsdk.server.objects.minting import FileMinter
from tests.support.messages import checksum, commit_entry, list_all, new_dataset, put_file, upload
from tests.support.server import RunningServer

DAY_MS = 24 * 60 * 60 * 1000

_WRITER = """
import sys
from pathlib import Path
from asyncsdk.protocol.items import ListItems
from asyncsdk.protocol.uploads import CommitUploads, PrepareUploads, UploadEntry
from asyncsdk.server.backend import Backend
from asyncsdk.server.objects.minting import FileMinter
from tests.support.messages import commit_entry, put_file
folder, dataset_id, who = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
backend = Backend.open(folder)
minter = FileMinter(backend.objects)
sys.stdin.readline()
for turn in range(15):
    data = {f"{who}/{turn}-{n}": f"{who} {turn} {n}".encode() for n in range(10)}
    data["shared"] = f"{who} {turn}".encode()      # every process replaces this one over and over
    asked = tuple(UploadEntry(path=path) for path in data)
    prepared = backend.handle(
        PrepareUploads(dataset_id=dataset_id, entries=asked, on_existing="overwrite"), backend.owner(), minter
    )
    entries = []
    for (path, content), reply in zip(data.items(), prepared.entries):
        put_file(reply.target, content)
        entries.append(commit_entry(path, reply.key, content))
    done = backend.handle(
        CommitUploads(dataset_id=dataset_id, entries=tuple(entries), on_existing="overwrite"), backend.owner(), minter
    )
    assert all(reply.verdict in {"created", "replaced"} for reply in done.entries), done
    print(turn, flush=True)
backend.close()
"""


def start_writer(data: Path, dataset_id: str, who: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(data), dataset_id, who],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


@pytest.fixture
def backend(data: Path) -> Iterator[Backend]:
    backend = Backend.open(data)
    yield backend
    backend.close()


def ask(backend: Backend, message: Any) -> Any:
    return backend.handle(message, backend.owner(), FileMinter(backend.objects))


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def check_whole(backend: Backend) -> None:
    """Every item has its bytes and every object its item; counts and positions agree with the rows."""
    from sqlalchemy import func, select, text

    from asyncsdk.server.schema import blobs, checkpoints, datasets, items

    with backend._database.read() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
        for row in connection.execute(select(datasets)).all():
            mine = (
                select(func.count(), func.coalesce(func.sum(blobs.c.size_bytes), 0))
                .select_from(items.join(blobs, items.c.blob_id == blobs.c.id))
                .where(items.c.dataset_id == row.id)
            )
            assert tuple(connection.execute(mine).one()) == (row.item_count, row.size_bytes)
            last = connection.execute(select(func.max(items.c.position)).where(items.c.dataset_id == row.id)).scalar()
            assert last is None or last < row.next_position
        counted: dict[str, int] = {}
        for table in (items, checkpoints):
            for blob_id in connection.execute(select(table.c.blob_id)).scalars():
                counted[blob_id] = counted.get(blob_id, 0) + 1
        stored = {row.id: row for row in connection.execute(select(blobs)).all()}
    assert {blob_id: row.references_count for blob_id, row in stored.items() if row.references_count > 0} == counted
    for blob_id in counted:
        content = backend.objects.path(blob_id, stored[blob_id].crc32c).read_bytes()
        assert (len(content), checksum(content)) == (stored[blob_id].size_bytes, stored[blob_id].crc32c)


def test_two_processes_write_to_one_dataset(data: Path, backend: Backend) -> None:
    """Nothing is lost, positions are dense, and what both replaced is counted once."""
    dataset = ask(backend, CreateDataset(name="d"))
    writers = [start_writer(data, dataset.id, who) for who in ("a", "b")]
    for writer in writers:
        writer.communicate("go\n")
    assert [writer.returncode for writer in writers] == [0, 0]
    now = ask(backend, GetDataset(dataset_id=dataset.id))
    assert now.item_count == 2 * 15 * 10 + 1
    check_whole(backend)
    assert len(files_in(data / "objects")) == now.item_count


@pytest.mark.parametrize("after_turns", [1, 4])
def test_a_killed_process_loses_nothing_that_was_answered(data: Path, backend: Backend, after_turns: int) -> None:
    """SIGKILL at any moment: what it was told is there stays whole, and the sweep takes what it left half-done."""
    dataset = ask(backend, CreateDataset(name="d"))
    writer = start_writer(data, dataset.id, "a")
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write("go\n")
    writer.stdin.flush()
    for _ in range(after_turns):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.communicate()[0]
    answered = after_turns + len(rest.split())
    check_whole(backend)
    now = ask(backend, GetDataset(dataset_id=dataset.id))
    assert now.item_count >= 10 * answered + 1
    backend.sweep(now_ms=backend_module._now_ms() + 10 * DAY_MS)
    check_whole(backend)
    assert len(files_in(data / "objects")) == now.item_count


async def test_served_and_embedded_share_a_folder(data: Path) -> None:
    """What one writes the other reads at once."""
    embedded = await EmbeddedPlatform.open(data)
    with RunningServer(data) as server:
        rest = RestPlatform(server.url, server.token)
        dataset = await new_dataset(embedded)
        assert await rest.send(GetDataset(dataset_id=dataset.id)) == dataset
        await upload(rest, dataset.id, {"a": b"over HTTP"})
        await upload(embedded, dataset.id, {"b": b"in-process"})
        assert await list_all(rest, dataset.id) == await list_all(embedded, dataset.id)
        await rest.send(DeleteDataset(dataset_id=dataset.id))
        await rest.aclose()
    assert files_in(data / "objects") == set()
    await embedded.aclose()


# --- crashes between the steps of a commit ---


class Crash(BaseException):
    """Ends the process, as far as the code under test can tell."""


def staged(backend: Backend, dataset_id: str, path: str = "a", content: bytes = b"one") -> CommitUploads:
    asked = PrepareUploads(dataset_id=dataset_id, entries=(UploadEntry(path=path),))
    (reply,) = ask(backend, asked).entries
    put_file(reply.target, content)
    return CommitUploads(dataset_id=dataset_id, entries=(commit_entry(path, reply.key, content),))


def crash(*_: Any, **__: Any) -> Any:
    raise Crash


def test_a_crash_before_the_database_commit(data: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object lies where it arrived, without a row: committing again takes it, or the sweep does."""
    dataset = ask(backend, CreateDataset(name="d"))
    kept, left = staged(backend, dataset.id, "kept"), staged(backend, dataset.id, "left")
    for message in (kept, left):
        with monkeypatch.context() as patch:
            patch.setattr("asyncsdk.server.handlers.commits._Commit.write", crash)
            with pytest.raises(Crash):
                ask(backend, message)
    assert len(files_in(data / "objects")) == 2
    assert ask(backend, GetDataset(dataset_id=dataset.id)).item_count == 0
    assert ask(backend, kept).entries[0].verdict == "created"
    backend.sweep(now_ms=backend_module._now_ms() + 10 * DAY_MS)
    check_whole(backend)
    assert len(files_in(data / "objects")) == 1


def test_a_crash_after_the_database_commit(data: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The item is there; what is due afterwards is the bytes of another that it replaced: they go later."""
    dataset = ask(backend, CreateDataset(name="d"))
    ask(backend, staged(backend, dataset.id, "a", b"one"))
    second = staged(backend, dataset.id, "a", b"other")
    with monkeypatch.context() as patch:
        patch.setattr(backend_module, "reap", crash)
        with pytest.raises(Crash):
            ask(backend, second)
    assert len(files_in(data / "objects")) == 2
    assert ask(backend, second).entries[0].verdict == "unchanged"
    assert len(files_in(data / "objects")) == 1
    backend.sweep(now_ms=backend_module._now_ms() + 10 * DAY_MS)
    check_whole(backend)
    assert len(files_in(data / "objects")) == 1


def test_a_crash_while_files_are_removed(data: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go before a transaction says so: a commit that saw one before does not take it for there."""
    dataset = ask(backend, CreateDataset(name="d"))
    first = staged(backend, dataset.id)
    made = ask(backend, first).entries[0]
    real_publish, real_remove = backend.objects.publish, backend.objects.remove

    def remove_and_crash(objects: Any) -> None:
        patch.setattr(backend.objects, "remove", real_remove)
        real_remove(objects)
        raise Crash

    def publish(objects: Any) -> None:  # the item is deleted between looking for its bytes and the write lock
        real_publish(objects)
        patch.setattr(backend.objects, "publish", real_publish)
        with pytest.raises(Crash):
            ask(backend, DeleteItems(dataset_id=dataset.id, item_ids=(made.item_id,)))

    with monkeypatch.context() as patch:
        patch.setattr(backend.objects, "remove", remove_and_crash)
        patch.setattr(backend.objects, "publish", publish)
        again = first.model_copy(update={"entries": (replace(first.entries[0], path="b"),)})
        (reply,) = backend.handle(again, backend.owner(), FileMinter(backend.objects)).entries
    assert (reply.verdict, reply.problem.code) == ("refused", "not_found")
    check_whole(backend)


def test_a_crash_after_a_delete(data: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were to go are remembered, and go later; that they cannot for a while fails nothing else."""
    dataset = ask(backend, CreateDataset(name="d"))
    other = ask(backend, CreateDataset(name="other"))
    ask(backend, staged(backend, dataset.id))
    with monkeypatch.context() as patch:
        patch.setattr(backend.objects, "remove", crash)
        with pytest.raises(Crash):
            ask(backend, DeleteDataset(dataset_id=dataset.id))
    assert len(files_in(data / "objects")) == 1

    def fail(*_: Any) -> None:
        raise PermissionError(13, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(backend.objects, "remove", fail)
        assert ask(backend, staged(backend, other.id)).entries[0].verdict == "created"
    assert backend.sweep().removed_objects == 1
    check_whole(backend)


def test_the_sweep_leaves_what_can_still_be_committed(data: Path, backend: Backend) -> None:
    """Uploads stay for a week; afterwards their keys are worth nothing a day before their bytes go."""
    dataset = ask(backend, CreateDataset(name="d"))
    message = staged(backend, dataset.id)
    now_ms = backend_module._now_ms()
    assert backend.sweep(now_ms=now_ms + 7 * DAY_MS).discarded_files == 0
    report = backend.sweep(now_ms=now_ms + 10 * DAY_MS)
    assert (report.discarded_files, report.removed_objects) == (1, 0)
    (reply,) = ask(backend, message).entries
    assert (reply.verdict, reply.problem.code) == ("refused", "not_found")


def test_an_old_key_is_worth_nothing(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although its bytes are still there: the sweep may come any moment."""
    dataset = ask(backend, CreateDataset(name="d"))
    message = staged(backend, dataset.id)
    content = b"{}\n"
    facts: dict[str, Any] = {"size_bytes": len(content), "crc32c": checksum(content)}
    ask(backend, CreatePredictionTask(dataset_id=dataset.id, name="t", kind="classification", categories=("x",)))
    (part,) = ask(backend, PrepareRowParts(dataset_id=dataset.id, parts=(RowPart(**facts),))).entries
    put_file(part.target, content)
    later = backend_module._now_ms() + 7 * DAY_MS + 1000
    monkeypatch.setattr(backend_module, "_now_ms", lambda: later)
    (reply,) = ask(backend, message).entries
    assert (reply.verdict, reply.problem.code) == ("refused", "not_found")
    rows = CommitPredictionParts(dataset_id=dataset.id, task="t", parts=(SentRowPart(key=part.key, **facts),))
    renewal = RenewUploads(scope_id=dataset.id, entries=(RenewEntry(key=part.key),))
    for old in (rows, renewal):
        with pytest.raises(NotFound):
            ask(backend, old)


def test_the_daily_sweep_runs_once_a_day(data: Path, backend: Backend) -> None:
    """In whatever process: the time of the last one stands in the folder."""
    now_ms = backend_module._now_ms()
    assert backend.sweep_if_due(now_ms=now_ms) is not None
    other = Backend.open(data)
    try:
        assert other.sweep_if_due(now_ms=now_ms + DAY_MS - 1) is None
        assert other.sweep_if_due(now_ms=now_ms + DAY_MS) is not None
    finally:
        other.close()
    assert backend.sweep_if_due(now_ms=now_ms + DAY_MS + 1) is None


def test_deleting_many_items_removes_their_files(data: Path, backend: Backend) -> None:
    dataset = ask(backend, CreateDataset(name="d"))
    ids = []
    for turn in range(3):
        asked = PrepareUploads(
            dataset_id=dataset.id, entries=tuple(UploadEntry(path=f"{turn}/{n}") for n in range(700))
        )
        entries = []
        for entry, reply in zip(asked.entries, ask(backend, asked).entries, strict=True):
            put_file(reply.target, b"x")
            entries.append(commit_entry(entry.path, reply.key, b"x"))
        replies = ask(backend, CommitUploads(dataset_id=dataset.id, entries=tuple(entries))).entries
        ids += [reply.item_id for reply in replies]
    assert len(files_in(data / "objects")) == 2100
    assert ask(backend, DeleteItems(dataset_id=dataset.id, item_ids=tuple(ids[:700]))).count == 700
    assert len(files_in(data / "objects")) == 1400
    check_whole(backend)
    ask(backend, DeleteDataset(dataset_id=dataset.id))
    assert files_in(data / "objects") == set()
