"""What is left to chance between reading, publishing and writing: replies that were lost, repetitions, full disks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import NotFound, ServerError
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.checkpoints import CommitCheckpoint, DeleteCheckpoint, ListCheckpoints, PrepareCheckpoint
from asyncsdk.protocol.datasets import CreateDataset, DatasetRecord
from asyncsdk.protocol.items import DeleteItems, ListItems
from asyncsdk.protocol.models import CreateModel
from asyncsdk.protocol.uploads import CommitEntry, CommittedUpload, CommitUploads, PrepareUploads, UploadEntry
from asyncsdk.server.backend import Backend
from asyncsdk.server.objects.arrivals import Arrival, Expected
from asyncsdk.server.objects.minting import FileMinter

DAY_MS = 24 * 3600 * 1000
BYTES = b"five."
DIGEST = crc32c_hex(crc32c(BYTES))

Send = Callable[[Message[Any]], Any]


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    backend = Backend.open(tmp_path / "data")
    yield backend
    backend.close()


@pytest.fixture
def send(backend: Backend) -> Send:
    return lambda message: backend.handle(message, backend.owner(), FileMinter(backend.objects))


@pytest.fixture
def dataset(send: Send) -> DatasetRecord:
    made: DatasetRecord = send(CreateDataset(name="photos"))
    return made


def arrive(backend: Backend, key: str) -> None:
    with Arrival(backend.objects, key[:24], Expected(len(BYTES))) as arrival:
        arrival.write([BYTES])
        arrival.finish()


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
        assert backend.objects.size(entry.key[:24]) is None

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
        assert backend.objects.size(key[:24]) is None

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
    assert backend.objects.size(entry.key[:24]) == len(BYTES)


def test_a_size_that_the_bytes_do_not_have_is_refused_also_beside_the_right_one(
    backend: Backend, send: Send, dataset: DatasetRecord
) -> None:
    good = sent(backend, send, dataset, "good")
    bad = good.model_copy(update={"item_id": make_id(), "path": "bad", "size_bytes": 999})
    assert [answer.verdict for answer in commit(send, dataset, bad, good, bad)] == ["refused", "created", "refused"]
    assert [(item.path, item.size_bytes) for item in send(ListItems(dataset_id=dataset.id)).entries] == [("good", 5)]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_commit_that_found_the_database_busy_can_be_repeated_or_is_swept(
    backend: Backend, send: Send, dataset: DatasetRecord, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    """Publishing must leave the staged name in place until the rows are durable, with and without hard links."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    def busy() -> None:
        raise ServerError("busy", status=503)

    if not has_links:
        monkeypatch.setattr("os.link", refuse)
    entries = [sent(backend, send, dataset, path) for path in ("repeated", "given up")]
    with monkeypatch.context() as patched:
        patched.setattr(backend._database, "write", busy)
        with pytest.raises(ServerError):
            commit(send, dataset, *entries)
    assert commit(send, dataset, entries[0])[0].verdict == "created"
    kept, dropped = (entry.key[:24] for entry in entries)
    assert backend.objects.size(dropped) == len(BYTES)
    backend.sweep(now_ms=int(entries[0].key[:8], 16) * 1000 + 30 * DAY_MS)
    assert (backend.objects.size(kept), backend.objects.size(dropped)) == (len(BYTES), None)
