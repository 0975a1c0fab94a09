"""An object store that is slow, or down: whoever does not need it does not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, NotFound, ServerError
from asyncsdk.protocol.archives import CommitArchive, PrepareArchive
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.datasets import CreateDataset, DeleteDataset
from asyncsdk.protocol.predictions import (
    CommitPredictionParts,
    CreatePredictionTask,
    PrepareRowParts,
    RowPart,
    SentRowPart,
)
from asyncsdk.protocol.projects import CommitProjectImage, CreateProject, PrepareProjectImage, UpdateProject
from asyncsdk.protocol.uploads import (
    CommitEntry,
    CommitUploads,
    PrepareUploads,
    RenewEntry,
    RenewUploads,
    UploadEntry,
)
from asyncsdk.server import backend as backend_module
from asyncsdk.server.backend import Backend
from asyncsdk.server.objects.minting import FileMinter
from tests.unit.server.conftest import DAY_MS, Send, arrive

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
ZIP = b"PK\x05\x06" + bytes(18)
ROWS = b'{"path": "absent", "predictions": []}\n'


def image(backend: Backend, send: Send, project_id: str) -> CommitProjectImage:
    key = send(PrepareProjectImage(project_id=project_id, size_bytes=len(PNG))).key
    return CommitProjectImage(project_id=project_id, filename="cover.png", **arrive(backend, key, PNG))


def archive(backend: Backend, send: Send, dataset_id: str) -> CommitArchive:
    key = send(PrepareArchive(dataset_id=dataset_id, size_bytes=len(ZIP))).key
    return CommitArchive(dataset_id=dataset_id, filename="all.zip", **arrive(backend, key, ZIP))


def row_parts(backend: Backend, send: Send, dataset_id: str) -> CommitPredictionParts:
    send(CreatePredictionTask(dataset_id=dataset_id, name="t", kind="classification", categories=("x",)))
    told = RowPart(size_bytes=len(ROWS), crc32c=crc32c_hex(crc32c(ROWS)))
    parts = send(PrepareRowParts(dataset_id=dataset_id, parts=(told, told))).entries
    sent = tuple(SentRowPart(**arrive(backend, part.key, ROWS), first_line=1) for part in parts)
    return CommitPredictionParts(dataset_id=dataset_id, task="t", parts=sent)


@pytest.mark.parametrize("what", ["image", "archive", "rows"])
def test_bytes_are_looked_at_without_the_write_lock(
    backend: Backend, send: Send, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A cloud takes its time, and an archive may be large: everybody else goes on writing."""
    project = send(CreateProject(name="streets"))
    dataset = send(CreateDataset(name="photos", project_id=project.id))
    message: Message[Any]
    match what:
        case "image":
            message = image(backend, send, project.id)
        case "archive":
            message = archive(backend, send, dataset.id)
        case _:
            message = row_parts(backend, send, dataset.id)
    looks: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(backend.store, name)

        def look(*arguments: Any) -> Any:
            looks.append(name)
            other = threading.Thread(target=send, args=(CreateProject(name=make_id()),))
            other.start()
            other.join(20)
            is_waiting = other.is_alive()
            assert not is_waiting, "the write lock is held"
            return real(*arguments)

        return look

    for name in ("sizes", "head", "open_staged", "remove"):
        monkeypatch.setattr(backend.store, name, watched(name))
    first = send(message)
    assert looks
    del looks[:]
    again = send(message)
    assert what != "rows" or (first.refused, again) == (2, first), "what was stored before is told again"


def test_the_files_of_row_parts_are_closed_whatever_becomes_of_them(
    backend: Backend, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored, refused, or broken off between looking and writing."""
    dataset = send(CreateDataset(name="photos"))
    message = row_parts(backend, send, dataset.id)
    opened: list[Any] = []
    real = backend.store.open_staged

    def watched(*staged: str) -> Any:
        opened.append(real(*staged))
        return opened[-1]

    monkeypatch.setattr(backend.store, "open_staged", watched)
    with monkeypatch.context() as patch:
        patch.setattr(backend.store, "publish", lambda objects: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            send(message)
    too_long = message.parts[1].model_copy(update={"size_bytes": len(ROWS) + 1})
    with pytest.raises(NotFound, match="a part of the rows"):
        send(message.model_copy(update={"parts": (message.parts[0], too_long)}))
    assert send(message).refused == 2
    assert len(opened) == 6
    assert all(file.closed for file in opened)


def test_a_key_too_old_to_be_looked_at_makes_no_archive(
    backend: Backend, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although its bytes are there, as an item: nobody saw that they are a zip."""
    dataset = send(CreateDataset(name="photos"))
    first = archive(backend, send, dataset.id)
    send(first)
    entry = UploadEntry(path="a.txt", size_bytes=7)
    key = send(PrepareUploads(dataset_id=dataset.id, entries=(entry,))).entries[0].key
    facts = arrive(backend, key, b"no zip.")
    send(CommitUploads(dataset_id=dataset.id, entries=(CommitEntry(item_id=make_id(), path="a.txt", **facts),)))
    with pytest.raises(BadRequest, match="no zip archive"):
        send(CommitArchive(dataset_id=dataset.id, filename="all.zip", **facts))
    now_ms = backend_module._now_ms()
    monkeypatch.setattr(backend_module, "_now_ms", lambda: now_ms + 8 * DAY_MS)
    with pytest.raises(NotFound, match="never arrived"):
        send(CommitArchive(dataset_id=dataset.id, filename="all.zip", **facts))
    assert send(first).filename == "all.zip", "it was committed"


def test_a_store_that_does_not_remove_is_left_alone_for_a_while(
    backend: Backend, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to go stays due; asking anew with every write would make each of them wait for the store."""
    dataset = send(CreateDataset(name="photos", dataset_id=make_id()))
    message = archive(backend, send, dataset.id)
    send(message)
    asked: list[int] = []
    real = backend.store.remove

    def down(objects: Any) -> None:
        asked.append(1)
        raise ServerError("no answer", status=503)

    monkeypatch.setattr(backend.store, "remove", down)
    send(DeleteDataset(dataset_id=dataset.id))
    project = send(CreateProject(name="first"))
    for number in range(5):
        send(UpdateProject(project_id=project.id, description=f"{number}"))
    assert len(asked) == 1
    assert backend.store.staged_size(message.key[:24], message.crc32c) == len(ZIP)
    monkeypatch.setattr(backend.store, "remove", real)
    monkeypatch.setattr(backend, "_tidy_after", 0.0)  # the pause is over
    send(UpdateProject(project_id=project.id, description="later"))
    assert backend.store.staged_size(message.key[:24], message.crc32c) is None


@pytest.mark.parametrize("what", ["image", "archive", "rows", "items", "renewal"])
def test_no_transaction_is_open_while_the_store_is_asked(
    backend: Backend, send: Send, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """One that reads, too: the log of changes would grow for as long as there is always one, and forks would wait."""
    project = send(CreateProject(name="streets"))
    dataset = send(CreateDataset(name="photos", project_id=project.id))
    asked: list[str] = []
    opened: list[str] = []

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            asked.append(name)
            if backend._database._active:
                opened.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    for name in ("sizes", "head", "open_staged", "remove"):
        watch(backend.store, name)
    for name in ("target", "targets", "renew"):
        watch(FileMinter, name)
    match what:
        case "image":
            send(image(backend, send, project.id))
        case "archive":
            send(archive(backend, send, dataset.id))
        case "rows":
            send(row_parts(backend, send, dataset.id))
        case _:
            entry = UploadEntry(path="a.jpg", size_bytes=len(PNG))
            (prepared,) = send(PrepareUploads(dataset_id=dataset.id, entries=(entry,))).entries
            if what == "renewal":
                renewed = RenewEntry(key=prepared.key, size_bytes=len(PNG))
                send(RenewUploads(scope_id=dataset.id, entries=(renewed,)))
            else:
                sent = CommitEntry(item_id=make_id(), path="a.jpg", **arrive(backend, prepared.key, PNG))
                (answer,) = send(CommitUploads(dataset_id=dataset.id, entries=(sent,))).entries
                assert answer.verdict == "created"
    assert len(asked) >= 2
    assert opened == []
