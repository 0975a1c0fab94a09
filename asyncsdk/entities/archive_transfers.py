"""How the archive of a dataset travels: one object, prepared, moved, committed."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import anyio.to_thread

from asyncsdk.domain.archives import HEAD_BYTES, is_zip
from asyncsdk.domain.paths import check_name, path_below
from asyncsdk.engine import EventCallback, ProgressCallback, Skipped, Transfer
from asyncsdk.entities.download_books import DownloadBooks
from asyncsdk.entities.local_files import checksum_of_file, known_size
from asyncsdk.entities.patience import patient
from asyncsdk.entities.resuming import check_resume, keeping, named_path, run_record
from asyncsdk.entities.session import Session
from asyncsdk.entities.single_books import SingleBooks
from asyncsdk.entities.single_objects import SingleDownload, SingleUpload, run_one
from asyncsdk.errors import Conflict, InvalidArchive
from asyncsdk.os_errors import os_errors
from asyncsdk.protocol.archives import (
    CommitArchive,
    PrepareArchive,
    PrepareArchiveDownload,
    UnpackPayload,
)
from asyncsdk.protocol.uploads import PreparedUpload
from asyncsdk.targets import Origin

__all__ = ["check_zip", "download_archive", "fetch_archive", "upload_archive"]


def check_zip(path: Path) -> None:
    """Do nothing when a file begins as a zip archive does. Blocking.

    Raises:
        InvalidArchive: It does not.
        SourceNotFound, SourceUnreadable: It is not there or cannot be read.
    """
    with os_errors("source", source=str(path)), path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not is_zip(head):
        raise InvalidArchive(f"{path}: is no zip archive")


@dataclass(frozen=True, slots=True)
class _Sent:
    """An archive that the dataset has now."""

    size_bytes: int
    crc32c: str


class _UploadFeed(SingleUpload):
    """An archive of a dataset."""

    def __init__(
        self, session: Session, dataset_id: str, source: Path, unpack: bool, books: SingleBooks | None
    ) -> None:
        super().__init__(session, dataset_id, source, books)
        self._path = source
        self._unpack = unpack

    async def _begin(self, size: int | None) -> Transfer:
        assert size is not None  # it is a path
        prepared, crc32c = await self._prepared(size, None), None
        if prepared.verdict == "compare":  # the dataset has an archive as large: perhaps it is this one
            crc32c = await anyio.to_thread.run_sync(checksum_of_file, self._path, size)
            prepared = await self._prepared(size, crc32c)
        if prepared.verdict == "skip":
            assert crc32c is not None  # without it nobody could tell
            return Skipped(str(self._path), size, reply=_Sent(size, crc32c))
        upload = self._upload(prepared, "an archive", size, crc32c=crc32c)
        # The archive of a dataset has no id of its own: it is known by the dataset's.
        state = None if self._books is None else self._books.begin(key=self._key, committed_id=self._scope_id)
        if state is not None:
            state.follow(upload)
        return upload

    async def _prepared(self, size: int, crc32c: str | None) -> PreparedUpload:
        message = PrepareArchive(
            dataset_id=self._scope_id,
            size_bytes=size,
            crc32c=crc32c,
            filename=self._path.name,
            unpack=self._unpack,
        )
        return await self._session.send(message)

    async def _commit(self, size_bytes: int, crc32c: str) -> _Sent:
        message = CommitArchive(
            dataset_id=self._scope_id,
            key=self._key,
            size_bytes=size_bytes,
            crc32c=crc32c,
            filename=self._path.name,
        )
        await self._session.send(message)
        return _Sent(size_bytes, crc32c)


async def upload_archive(
    session: Session,
    dataset_id: str,
    path: str | PathLike[str],
    *,
    unpack: bool,
    resume: bool | str,
    on_progress: ProgressCallback | None,
    on_event: EventCallback | None,
) -> UnpackPayload:
    """Make a file the archive of a dataset; returns what a job that unpacks it is to be told.

    See `AsyncDatasetArchive.upload_archive`.
    """
    session = patient(session)
    source = Path(path)
    check_name(source.name)
    check_resume(resume)
    await known_size(source)
    await anyio.to_thread.run_sync(check_zip, source)
    run = run_record(
        session,
        "archive_upload",
        named_path(source, resume),
        identity={"dataset": dataset_id},
        arguments={"dataset": dataset_id, "unpack": unpack},
    )
    async with keeping(session.settings, run, on_event) as kept:
        books = None if kept.journal is None else SingleBooks(kept.journal)
        outcome = await run_one(session, _UploadFeed(session, dataset_id, source, unpack, books), on_progress, on_event)
        kept.is_complete = True
    sent = outcome.reply
    assert isinstance(sent, _Sent)
    return UnpackPayload(dataset_id=dataset_id, size_bytes=sent.size_bytes, crc32c=sent.crc32c)


def _download(
    session: Session, dataset_id: str, first: Origin, path: Path, books: DownloadBooks | None = None
) -> SingleDownload:
    """Return the feed that fetches an archive."""

    async def origin() -> Origin:
        found: Origin = (await session.send(PrepareArchiveDownload(dataset_id=dataset_id))).origin
        return found

    return SingleDownload(session, origin, path, first=first, books=books, name=f"{dataset_id}-{first.crc32c}")


async def download_archive(
    session: Session,
    dataset_id: str,
    destination: str | PathLike[str],
    *,
    resume: bool | str,
    on_progress: ProgressCallback | None,
    on_event: EventCallback | None,
) -> Path:
    """Fetch the archive of a dataset; returns where it is. See `AsyncDatasetArchive.download_archive`."""
    check_resume(resume)
    session = patient(session)
    prepared = await session.send(PrepareArchiveDownload(dataset_id=dataset_id))
    path = Path(destination)
    if await anyio.to_thread.run_sync(path.is_dir):
        path = path_below(path, prepared.filename or f"{dataset_id}.zip")
    run = run_record(
        session,
        "archive_download",
        named_path(path, resume),
        identity={"dataset": dataset_id, "crc32c": prepared.origin.crc32c, "to": named_path(path, True)},
        arguments={"dataset": dataset_id},
    )
    async with keeping(session.settings, run, on_event) as kept:
        books = None if kept.journal is None else DownloadBooks(kept.journal)
        feed = _download(session, dataset_id, prepared.origin, path, books)
        await run_one(session, feed, on_progress, on_event, bytes_total=prepared.origin.size_bytes)
        kept.is_complete = True
    return path


async def fetch_archive(session: Session, payload: UnpackPayload, destination: Path) -> None:
    """Download the archive that *payload* means into a file, without a journal.

    Raises:
        NotFound: The dataset, or its archive, is gone.
        Conflict: It has another archive by now.
    """
    session = patient(session)
    prepared = await session.send(PrepareArchiveDownload(dataset_id=payload.dataset_id))
    origin: Origin = prepared.origin
    for name in ("size_bytes", "crc32c"):
        wanted, found = getattr(payload, name), getattr(origin, name)
        if wanted is not None and found is not None and found != wanted:
            raise Conflict(f"dataset {payload.dataset_id} has another archive now, {prepared.filename!r}; unpack that")
    feed = _download(session, payload.dataset_id, origin, destination)
    await run_one(session, feed, bytes_total=origin.size_bytes)
