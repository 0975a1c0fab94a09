"""What is left to chance between reading, publishing and writing: replies that were lost, repetitions, full disks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import NotFound, ServerError
from asyncsdk.protocol.checkpoints import CommitCheckpoint, DeleteCheckpoint, ListCheckpoints, PrepareCheckpoint
from asyncsdk.protocol.datasets import DatasetRecord
from asyncsdk.protocol.items import DeleteItems, ListItems
from asyncsdk.protocol.models import CreateModel
from asyncsdk.protocol.predictions import (
    CommitPredictionParts,
    CreatePredictionTask,
    PrepareRowParts,
    RowPart,
    SentRowPart,
)
from asyncsdk.protocol.uploads import CommitEntry, CommittedUpload, CommitUploads, PrepareUploads, UploadEntry
from asyncsdk.server.backend import Backend
from asyncsdk.server.objects.arrivals import Arrival, Expected
from tests.unit.server.conftest import BYTES, DAY_MS, DIGEST, Send, arrive


def sent(backend: Backend, send: Send, dataset: DatasetRecord, path: str) -> CommitEntry:
    """Prepare and send one object; return what commits it."""
    asked = (UploadEntry(path=path, size_bytes=len(BYTES)),)
    key = send(PrepareUploads(dataset_id=dataset.id, entries=asked)).entries[0].key
    arrive(backend, key)
    return CommitEntry(item_id=make_id(), path=path, key=key, size_bytes=len(BYTES), crc32c=DIGEST)


def commit(send: Send, dataset: DatasetRecord, *entries: CommitEntry) -> Sequence[CommittedUpload]:
    answers: Sequence[CommittedUpload] = send(CommitUploads(dataset_id=dataset.id, entries=entries)).entries
    return answers


def after_publishing(backend: Backend, monkeypatch: pytest.MonkeyPatch, what: Callable[[], None]) -> None:
    """Have *what* done once, between the next publishing and the write lock."""
    real = backend.objects.publish

    def publish(objects: Sequence[tuple[str, str]]) -> None:
        real(objects)
        monkeypatch.setattr(backend.objects, "publish", real)
        what()

    monkeypatch.setattr(backend.objects, "publish", publish)


def test_an_item_is_not_created_of_bytes_that_went_while_the_commit_waited(
    backend: Backend, send: Send, dataset: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = sent(backend, send, dataset, "a")

    def commit_and_delete() -> None:
        assert commit(send, dataset, entry)[0].verdict == "created"
        assert send(DeleteItems(dataset_id=dataset.id, item_ids=(entry.item_id,))).count == 1
        assert backend.objects.staged_size(entry.key[:24], DIGEST) is None

    after_publishing(backend, monkeypatch, commit_and_delete)
    (answer,) = commit(send, dataset, entry)
    assert answer.verdict == "refused"
    assert answer.problem is not None
    assert answer.problem.code == "not_found"
    assert send(ListItems(dataset_id=dataset.id)).entries == ()


def test_a_checkpoint_is_not_created_of_bytes_that_went_while_the_commit_waited(
    backend: Backend, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = send(CreateModel(name="m"))
    key = send(PrepareCheckpoint(model_id=model.id, size_bytes=len(BYTES))).key
    arrive(backend, key)
    message = CommitCheckpoint(
        model_id=model.id, checkpoint_id=make_id(), key=key, filename="w.pt", size_bytes=len(BYTES), crc32c=DIGEST
    )

    def commit_and_delete() -> None:
        assert send(message).id == message.checkpoint_id
        send(DeleteCheckpoint(model_id=model.id, checkpoint_id=message.checkpoint_id))
        assert backend.objects.staged_size(key[:24], DIGEST) is None

    after_publishing(backend, monkeypatch, commit_and_delete)
    with pytest.raises(NotFound, match="upload again"):
        send(message)
    assert send(ListCheckpoints(model_id=model.id)).entries == ()


def test_two_commits_at_once_of_the_same_bytes_make_one_item(
    backend: Backend, send: Send, dataset: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = sent(backend, send, dataset, "a")
    verdicts = []
    after_publishing(backend, monkeypatch, lambda: verdicts.append(commit(send, dataset, entry)[0].verdict))
    verdicts.append(commit(send, dataset, entry)[0].verdict)
    assert verdicts == ["created", "unchanged"]
    assert backend.objects.staged_size(entry.key[:24], DIGEST) == len(BYTES)


def test_a_size_that_the_bytes_do_not_have_is_refused_also_beside_the_right_one(
    backend: Backend, send: Send, dataset: DatasetRecord
) -> None:
    good = sent(backend, send, dataset, "good")
    bad = replace(good, item_id=make_id(), path="bad", size_bytes=999)
    assert [answer.verdict for answer in commit(send, dataset, bad, good, bad)] == ["refused", "created", "refused"]
    assert [(item.path, item.size_bytes) for item in send(ListItems(dataset_id=dataset.id)).entries] == [("good", 5)]


def test_a_commit_that_found_the_database_busy_can_be_repeated_or_is_swept(
    backend: Backend, send: Send, dataset: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its objects stay where they arrived, whatever becomes of the rows."""

    def busy() -> None:
        raise ServerError("busy", status=503)

    entries = [sent(backend, send, dataset, path) for path in ("repeated", "given up")]
    with monkeypatch.context() as patched:
        patched.setattr(backend._database, "write", busy)
        with pytest.raises(ServerError):
            commit(send, dataset, *entries)
    assert commit(send, dataset, entries[0])[0].verdict == "created"
    kept, dropped = (entry.key[:24] for entry in entries)
    assert backend.objects.staged_size(dropped, DIGEST) == len(BYTES)
    backend.sweep(now_ms=int(entries[0].key[:8], 16) * 1000 + 30 * DAY_MS)
    assert (backend.objects.staged_size(kept, DIGEST), backend.objects.staged_size(dropped, DIGEST)) == (
        len(BYTES),
        None,
    )


def test_other_bytes_under_a_key_that_is_committed_are_refused(
    backend: Backend, send: Send, dataset: DatasetRecord
) -> None:
    """Although they arrived: an object never changes."""
    entry = sent(backend, send, dataset, "a")
    assert commit(send, dataset, entry)[0].verdict == "created"
    with Arrival(backend.objects, entry.key[:24], Expected(5)) as arrival:
        arrival.write([b"other"])
        digest = arrival.finish()
    other = replace(entry, item_id=make_id(), path="b", crc32c=digest)
    (answer,) = commit(send, dataset, other)
    assert answer.problem is not None
    assert (answer.verdict, answer.problem.code) == ("refused", "conflict")
    assert backend.objects.path(entry.key[:24], DIGEST).read_bytes() == BYTES


def test_bytes_that_are_superfluous_at_one_path_stay_when_another_has_them(
    backend: Backend, send: Send, dataset: DatasetRecord
) -> None:
    """An equal item stands at the path, so that the object is not needed there; it may be committed elsewhere."""
    first, second = sent(backend, send, dataset, "a"), sent(backend, send, dataset, "b")
    commit(send, dataset, first, second)
    third = sent(backend, send, dataset, "c")
    at_a = replace(second, item_id=make_id(), path="a")
    third_at_a = replace(third, item_id=make_id(), path="a")
    assert [answer.verdict for answer in commit(send, dataset, at_a, third_at_a, third)] == [
        "unchanged",
        "unchanged",
        "created",
    ]
    for entry in (first, second, third):
        assert backend.objects.staged_size(entry.key[:24], DIGEST) == len(BYTES)
    fourth = replace(sent(backend, send, dataset, "d"), path="a")
    assert commit(send, dataset, fourth)[0].verdict == "unchanged"
    assert backend.objects.staged_size(fourth.key[:24], DIGEST) is None


def test_a_commit_touches_no_file(
    backend: Backend, send: Send, dataset: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks, and syncs once: what becomes of an object is a matter of rows."""
    entries = [sent(backend, send, dataset, f"{number}") for number in range(20)]
    paths = [backend.objects.path(entry.key[:24], DIGEST) for entry in entries]
    before = [path.stat() for path in paths]
    folders = [path.parent.stat() for path in paths]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a commit changes no names")

    with monkeypatch.context() as patched:
        for name in ("link", "rename", "replace", "unlink", "mkdir"):
            patched.setattr(f"os.{name}", refuse)
        assert {answer.verdict for answer in commit(send, dataset, *entries)} == {"created"}
        assert {answer.verdict for answer in commit(send, dataset, *entries)} == {"unchanged"}
    assert [path.stat() for path in paths] == before
    assert [path.parent.stat() for path in paths] == folders


def test_ids_that_are_greater_than_all_others_do_not_hide_what_is_stored(
    backend: Backend, send: Send, dataset: DatasetRecord
) -> None:
    """Clients make ids; those of old batches may come late, and one may come from a clock that is wrong."""
    late = sent(backend, send, dataset, "late")
    future = replace(sent(backend, send, dataset, "future"), item_id="f" * 24)
    assert commit(send, dataset, future)[0].verdict == "created"
    assert commit(send, dataset, late)[0].verdict == "created"
    again = replace(sent(backend, send, dataset, "again"), item_id=late.item_id)
    (answer,) = commit(send, dataset, again)
    assert answer.problem is not None
    assert (answer.verdict, answer.problem.code) == ("refused", "conflict")


def test_row_parts_that_are_committed_as_an_item_too_are_not_removed(
    backend: Backend, send: Send, dataset: DatasetRecord
) -> None:
    data = b'{"path": "absent", "predictions": []}\n'
    digest = crc32c_hex(crc32c(data))
    send(CreatePredictionTask(dataset_id=dataset.id, name="t", kind="classification", categories=("x",)))
    (part,) = send(
        PrepareRowParts(dataset_id=dataset.id, parts=(RowPart(size_bytes=len(data), crc32c=digest),))
    ).entries
    with Arrival(backend.objects, part.key[:24], Expected(len(data))) as arrival:
        arrival.write([data])
        arrival.finish()
    facts: dict[str, Any] = {"key": part.key, "size_bytes": len(data), "crc32c": digest}
    assert commit(send, dataset, CommitEntry(item_id=make_id(), path="rows", **facts))[0].verdict == "created"
    message = CommitPredictionParts(dataset_id=dataset.id, task="t", parts=(SentRowPart(**facts),))
    for _ in range(2):
        assert send(message).refused == 1
    assert backend.objects.staged_size(part.key[:24], digest) == len(data)
