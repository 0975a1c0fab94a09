"""Objects that nothing points to: how they go, whatever the store does and whoever dies on the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import NotFound, ServerError, StoreError
from asyncsdk.protocol.datasets import DatasetRecord
from asyncsdk.protocol.items import DeleteItems
from asyncsdk.protocol.projects import CreateProject
from asyncsdk.protocol.uploads import (
    CommitEntry,
    CommitUploads,
    PrepareUploads,
    RenewEntry,
    RenewUploads,
    UploadEntry,
)
from asyncsdk.server import backend as backend_module
from asyncsdk.server import sweep as sweep_module
from asyncsdk.server.backend import Backend
from asyncsdk.server.handlers.keys import SWEEP_AGE_MS
from asyncsdk.server.objects.clouds.location import Location
from tests.unit.server.conftest import BYTES, DAY_MS, DIGEST, Send, arrive


def committed(backend: Backend, send: Send, dataset: DatasetRecord, *paths: str) -> list[CommitEntry]:
    """Make an item at each path; return what committed it."""
    asked = tuple(UploadEntry(path=path, size_bytes=len(BYTES)) for path in paths)
    keys = [answer.key for answer in send(PrepareUploads(dataset_id=dataset.id, entries=asked)).entries]
    entries = []
    for path, key in zip(paths, keys, strict=True):
        arrive(backend, key)
        entries.append(CommitEntry(item_id=make_id(), path=path, key=key, size_bytes=len(BYTES), crc32c=DIGEST))
    answers = send(CommitUploads(dataset_id=dataset.id, entries=tuple(entries))).entries
    assert {answer.verdict for answer in answers} == {"created"}
    return entries


def delete(send: Send, dataset: DatasetRecord, *entries: CommitEntry) -> None:
    send(DeleteItems(dataset_id=dataset.id, item_ids=tuple(entry.item_id for entry in entries)))


def counts(backend: Backend) -> dict[str, int]:
    with backend._database.read() as connection:
        return dict(connection.exec_driver_sql("SELECT id, references_count FROM blobs").all())  # type: ignore[arg-type]


def is_there(backend: Backend, entry: CommitEntry) -> bool:
    return backend.objects.staged_size(entry.key[:24], DIGEST) is not None


def test_the_store_is_asked_without_the_write_lock(
    backend: Backend, send: Send, dataset: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that hangs keeps whoever deleted, and nobody else: not even others who delete."""
    first, second = committed(backend, send, dataset, "a", "b")
    real = backend.store.remove
    asked: list[int] = []

    def slow(objects: Any) -> Mapping[str, str]:
        asked.append(1)
        if len(asked) == 1:
            others = [
                threading.Thread(target=send, args=(CreateProject(name="other"),)),
                threading.Thread(target=delete, args=(send, dataset, second)),
            ]
            for other in others:
                other.start()
                other.join(20)
            assert not any(other.is_alive() for other in others)
        return real(objects)

    monkeypatch.setattr(backend.store, "remove", slow)
    delete(send, dataset, first)
    assert asked == [1, 1]
    assert not is_there(backend, first)
    assert not is_there(backend, second), "who is removing already does it for others too"


def test_who_removes_for_others_is_answered_all_the_same(
    backend: Backend, send: Send, dataset: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as others delete there is more to remove: it goes with a later write."""
    first, *others = committed(backend, send, dataset, *"abcd")
    monkeypatch.setattr(backend_module, "_TIDY_SECONDS", 0.0)
    monkeypatch.setattr(backend_module, "_REAP_BATCHES", 1)
    real = backend.store.remove
    asked: list[int] = []

    def busy(objects: Any) -> Mapping[str, str]:
        asked.append(1)
        if others:
            other = threading.Thread(target=delete, args=(send, dataset, others.pop()))
            other.start()
            other.join(20)
        return real(objects)

    with monkeypatch.context() as patch:
        patch.setattr(backend.store, "remove", busy)
        delete(send, dataset, first)
    assert len(asked) == 1
    send(CreateProject(name="other"))
    assert sorted(counts(backend).values()) == [-2, -2, 1, 1]


def test_a_key_is_dead_as_soon_as_its_object_may_go(
    backend: Backend, send: Send, dataset: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that comes while it is being removed, and later, is refused; what is sent again goes with the sweep."""
    (entry,) = committed(backend, send, dataset, "a")
    again = replace(entry, item_id=make_id())
    verdicts: list[str] = []
    real = backend.store.remove

    def commit() -> None:
        answer = send(CommitUploads(dataset_id=dataset.id, entries=(again,))).entries[0]
        verdicts.append(answer.problem.code if answer.problem else answer.verdict)

    def interrupted(objects: Any) -> Mapping[str, str]:
        assert is_there(backend, entry)
        commit()
        stayed = real(objects)
        arrive(backend, entry.key)
        commit()
        return stayed

    monkeypatch.setattr(backend.store, "remove", interrupted)
    delete(send, dataset, entry)
    commit()
    assert verdicts == ["not_found"] * 3
    assert is_there(backend, entry), "sent again, by somebody who did not know"
    monkeypatch.setattr(backend.store, "remove", real)
    backend.sweep(now_ms=int(entry.key[:8], 16) * 1000 + SWEEP_AGE_MS + 2 * DAY_MS)
    assert not is_there(backend, entry)
    assert counts(backend) == {}, "no row is kept for a key that is too old"


def test_a_dead_key_gets_no_urls(backend: Backend, send: Send, dataset: DatasetRecord) -> None:
    """Whoever goes on with an upload of which the item was deleted since begins anew, and does not send in vain."""
    gone, kept = committed(backend, send, dataset, "a", "b")
    delete(send, dataset, gone)
    for entry, is_renewed in ((kept, True), (gone, False)):
        message = RenewUploads(scope_id=dataset.id, entries=(RenewEntry(key=entry.key, size_bytes=len(BYTES)),))
        if is_renewed:
            assert len(send(message).targets) == 1
        else:
            with pytest.raises(NotFound, match="upload again"):
                send(message)


def test_an_object_that_is_to_go_and_is_committed_first_stays(
    backend: Backend, send: Send, dataset: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without references it is surely there: nobody begins to remove what has some."""
    (entry,) = committed(backend, send, dataset, "a")
    with monkeypatch.context() as patch:
        patch.setattr(backend, "_tidy", lambda now_ms: None)
        delete(send, dataset, entry)
        assert counts(backend) == {entry.key[:24]: 0}
        (answer,) = send(CommitUploads(dataset_id=dataset.id, entries=(replace(entry, item_id=make_id()),))).entries
    assert answer.verdict == "created"
    backend.sweep()
    assert is_there(backend, entry)
    assert counts(backend) == {entry.key[:24]: 1}


def test_a_process_that_dies_while_it_removes_leaves_it_to_the_sweep(
    backend: Backend, send: Send, dataset: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = committed(backend, send, dataset, "a", "b")

    class Killed(BaseException):
        pass

    def die(objects: Any) -> Mapping[str, str]:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(backend.store, "remove", die)
        with pytest.raises(Killed):
            delete(send, dataset, first)
    assert counts(backend) == {first.key[:24]: -1, second.key[:24]: 1}
    backend.sweep()
    assert not is_there(backend, first)
    assert counts(backend) == {first.key[:24]: -2, second.key[:24]: 1}


def test_a_folder_that_still_has_an_object_to_remove_moves_to_no_bucket(
    backend: Backend, send: Send, dataset: DatasetRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked for in the bucket, it would lie in the folder for ever."""
    (entry,) = committed(backend, send, dataset, "a")
    with monkeypatch.context() as patch:
        patch.setattr(backend.store, "remove", lambda objects: {entry.key[:24]: "EPERM"})
        delete(send, dataset, entry)
    assert counts(backend) == {entry.key[:24]: -1}
    elsewhere = Location.parse("s3://bucket", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="lie in the folder itself"):
        Backend.open(tmp_path / "data", elsewhere)


def test_what_the_store_does_not_let_go_keeps_nothing_else(
    backend: Backend,
    send: Send,
    dataset: DatasetRecord,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A retention on two objects, as many as go at once: those behind them go, and the two when they may."""
    monkeypatch.setattr(sweep_module, "_REAP_BATCH", 2)
    entries = committed(backend, send, dataset, *"abcdefg")
    held = {entry.key[:24] for entry in entries[:2]}
    real = backend.store.remove

    def holding(objects: Any) -> Mapping[str, str]:
        real([staged for staged in objects if staged[0] not in held])
        return {object_id: "AccessDenied" for object_id, _ in objects if object_id in held}

    monkeypatch.setattr(backend.store, "remove", holding)
    with caplog.at_level(logging.WARNING, "asyncsdk.server"):
        delete(send, dataset, *entries)
        backend.sweep()
    assert [is_there(backend, entry) for entry in entries] == [True, True, *[False] * 5]
    assert [count for _, count in sorted(counts(backend).items())] == [-1, -1, *[-2] * 5]
    assert "2 objects that are to go stay" in caplog.text
    assert "AccessDenied" in caplog.text
    held.clear()
    backend.sweep()
    assert not any(is_there(backend, entry) for entry in entries)


@pytest.mark.parametrize("error", [ServerError("no answer", status=503), KeyError("Key")], ids=["down", "odd"])
def test_what_a_failing_store_left_goes_with_a_later_write(
    backend: Backend, send: Send, dataset: DatasetRecord, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever fails, a reply that nobody can read included: what was asked for is done, and is told so."""
    (entry,) = committed(backend, send, dataset, "a")

    def down(objects: Any) -> Mapping[str, str]:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(backend.store, "remove", down)
        delete(send, dataset, entry)
    send(CreateProject(name="during the pause"))
    assert is_there(backend, entry)
    monkeypatch.setattr(backend, "_tidy_after", 0.0)  # the pause is over
    send(CreateProject(name="after it"))
    assert not is_there(backend, entry)


def test_the_indexes_of_rows_without_references_are_used(backend: Backend) -> None:
    """Each of these runs with every write, or every day, over a table of millions."""
    statements = {
        "blobs_unreferenced": [sweep_module._UNREFERENCED],
        "blobs_dead": [sweep_module._STILL_DYING, sweep_module._FORGET_GONE],
    }
    values = {1: (5,), 2: ("0", 5)}
    with backend._database.read() as connection:
        for index, those in statements.items():
            for statement in those:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values[statement.count("?")]).all()
                assert index in str(plan), statement
