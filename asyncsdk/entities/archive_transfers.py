"""How the archive of a dataset travels: one object, prepared, moved, committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import anyio.to_thread

from asyncsdk.checksums import crc32c_hex
from asyncsdk.domain.archives import HEAD_BYTES, is_zip
from asyncsdk.domain.paths import check_name, path_below
from asyncsdk.engine import Download, EventCallback, Feed, Outcome, ProgressCallback, Skipped, Transfer, Upload
from asyncsdk.engine.journal import LargeState
from asyncsdk.entities.checkpoint_books import CheckpointBooks
from asyncsdk.entities.download_books import DownloadBooks
from asyncsdk.entities.local_files import checksum_of_file, known_size
from asyncsdk.entities.resuming import check_resume, keeping, named_path, run_record
from asyncsdk.entities.session import Session
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ChecksumMismatch,
    ConfigError,
    Conflict,
    InvalidArchive,
    MalformedResponse,
    NotFound,
    PermissionDenied,
    os_errors,
)
from asyncsdk.protocol.archives import (
    ArchiveRecord,
    CommitArchive,
    PrepareArchive,
    PrepareArchiveDownload,
    PreparedArchiveDownload,
    UnpackPayload,
)
from asyncsdk.protocol.uploads import PreparedUpload, RenewEntry, RenewUploads
from asyncsdk.targets import MultipartTarget, Origin, ResumableTarget, Target

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


class _UploadFeed:
    """One archive: prepared when it is taken, committed when it is settled."""

    def __init__(
        self, session: Session, dataset_id: str, source: Path, unpack: bool, books: CheckpointBooks | None
    ) -> None:
        self.judges_uploads = True  # the platform compares size and checksum before it takes it for the archive
        self._session = session
        self._dataset_id = dataset_id
        self._source = source
        self._unpack = unpack
        self._books = books
        self._is_taken = False
        self._key = ""

    async def take(self, want: int) -> Sequence[Transfer]:
        if self._is_taken:
            return ()
        self._is_taken = True
        size = await known_size(self._source)
        assert size is not None  # it is a path
        begun = None if self._books is None else await self._books.recall(self._source)
        going_on = None if begun is None else await self._go_on(begun, size)
        return (await self._begin(size) if going_on is None else going_on,)

    async def _begin(self, size: int) -> Transfer:
        prepared, crc32c = await self._prepared(size, None), None
        if prepared.verdict == "compare":  # the dataset has an archive as large: perhaps it is this one
            crc32c = await anyio.to_thread.run_sync(checksum_of_file, self._source, size)
            prepared = await self._prepared(size, crc32c)
        if prepared.verdict == "skip":
            assert crc32c is not None  # without it nobody could tell
            return Skipped(self._source.name, size, reply=_Sent(size, crc32c))
        if prepared.key is None or prepared.target is None:
            raise MalformedResponse("the platform prepared an archive without saying where it goes")
        self._key = prepared.key
        upload = Upload(self._source, prepared.target, size_bytes=size, crc32c=crc32c)
        # The archive of a dataset has no id of its own: it is known by the dataset's.
        state = None if self._books is None else self._books.begin(key=self._key, checkpoint_id=self._dataset_id)
        if state is not None:
            upload.resume = state.resume()
        return upload

    async def _prepared(self, size: int, crc32c: str | None) -> PreparedUpload:
        message = PrepareArchive(
            dataset_id=self._dataset_id,
            size_bytes=size,
            crc32c=crc32c,
            filename=self._source.name,
            unpack=self._unpack,
        )
        return await self._session.send(message)

    async def _go_on(self, begun: LargeState, size: int) -> Transfer | None:
        """Return how an upload goes on that an earlier run began; None: not at all."""
        self._key = begun.facts["key"]
        whole = begun.whole_crc32c(size)
        crc32c = begun.facts.get("arrived") or (None if whole is None else crc32c_hex(whole))
        try:
            if isinstance(crc32c, str):
                await self._commit(size, crc32c)
                return Skipped(self._source.name, size, reply=_Sent(size, crc32c))
        except (BadRequest, NotFound):  # its bytes did not arrive whole, or are gone
            pass
        try:
            target = await self._renewed(size, begun.facts.get("upload_id"), 1)
            return Upload(self._source, target, size_bytes=size, resume=begun.resume())
        except (BadRequest, NotFound, PermissionDenied):  # too old, or of an earlier configuration
            begun.forget()
            return None

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        assert isinstance(transfer, Upload)
        target = transfer.target
        upload_id = target.upload_id if isinstance(target, (MultipartTarget, ResumableTarget)) else None
        return await self._renewed(transfer.size_bytes, upload_id, first_part)

    async def replace(self, transfer: Upload) -> Target | None:
        return await self._renewed(transfer.size_bytes, None, 1)

    async def _renewed(self, size_bytes: int | None, upload_id: str | None, first_part: int) -> Target:
        entry = RenewEntry(key=self._key, size_bytes=size_bytes, upload_id=upload_id, first_part=first_part)
        renewed = await self._session.send(RenewUploads(scope_id=self._dataset_id, entries=(entry,)))
        fresh: Target = renewed.targets[0]
        return fresh

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            if isinstance(outcome.error, ChecksumMismatch) and self._books is not None:
                self._books.came_out_wrong()
            if outcome.status != "done" or outcome.crc32c is None:
                continue
            if self._books is not None:
                await self._books.arrived(outcome.crc32c)
            try:
                await self._commit(outcome.size_bytes, outcome.crc32c)
                outcome.reply = _Sent(outcome.size_bytes, outcome.crc32c)
            except AsyncSDKError as error:
                outcome.status, outcome.error = "failed", error
        return outcomes

    async def _commit(self, size_bytes: int, crc32c: str) -> ArchiveRecord:
        message = CommitArchive(
            dataset_id=self._dataset_id,
            key=self._key,
            size_bytes=size_bytes,
            crc32c=crc32c,
            filename=self._source.name,
        )
        return await self._session.send(message)


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
        arguments={"dataset": dataset_id},
    )
    async with keeping(session.settings, run, on_event) as kept:
        books = None if kept.journal is None else CheckpointBooks(kept.journal)
        outcome = await _run(session, _UploadFeed(session, dataset_id, source, unpack, books), on_progress, on_event)
        kept.is_complete = True
    sent = outcome.reply
    assert isinstance(sent, _Sent)
    return UnpackPayload(dataset_id=dataset_id, size_bytes=sent.size_bytes, crc32c=sent.crc32c)


class _DownloadFeed:
    """One archive to fetch."""

    def __init__(
        self,
        session: Session,
        dataset_id: str,
        prepared: PreparedArchiveDownload,
        destination: Path,
        books: DownloadBooks | None,
    ) -> None:
        self._session = session
        self._dataset_id = dataset_id
        self._origin: Origin = prepared.origin
        self._books = books
        self._destination: Path | None = destination

    async def take(self, want: int) -> Sequence[Download]:
        if self._destination is None:
            return ()
        destination, self._destination = self._destination, None
        download = Download(self._origin, destination)
        size, name = self._origin.size_bytes or 0, f"{self._dataset_id}-{self._origin.crc32c}"
        if self._books is not None and size > self._session.engine.config.multipart_threshold:
            download.received = (await self._books.receive([name]))[name]
        return (download,)

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        prepared = await self._session.send(PrepareArchiveDownload(dataset_id=self._dataset_id))
        fresh: Origin = prepared.origin
        return fresh

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return outcomes


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
    prepared = await session.send(PrepareArchiveDownload(dataset_id=dataset_id))
    path = Path(destination)
    if await anyio.to_thread.run_sync(path.is_dir):
        path = path_below(path, prepared.filename or f"{dataset_id}.zip")
    run = run_record(
        session,
        "archive_download",
        named_path(path, resume),
        identity={"dataset": dataset_id, "crc32c": prepared.origin.crc32c},
        arguments={"dataset": dataset_id},
    )
    async with keeping(session.settings, run, on_event) as kept:
        books = None if kept.journal is None else DownloadBooks(kept.journal)
        feed = _DownloadFeed(session, dataset_id, prepared, path, books)
        await _run(session, feed, on_progress, on_event, bytes_total=prepared.origin.size_bytes)
        kept.is_complete = True
    return path


async def fetch_archive(session: Session, payload: UnpackPayload, destination: Path) -> None:
    """Download the archive that *payload* means into a file, without a journal.

    Raises:
        NotFound: The dataset, or its archive, is gone.
        Conflict: It has another archive by now.
    """
    prepared = await session.send(PrepareArchiveDownload(dataset_id=payload.dataset_id))
    origin: Origin = prepared.origin
    for name in ("size_bytes", "crc32c"):
        wanted, found = getattr(payload, name), getattr(origin, name)
        if wanted is not None and found is not None and found != wanted:
            raise Conflict(f"dataset {payload.dataset_id} has another archive now, {prepared.filename!r}; unpack that")
    feed = _DownloadFeed(session, payload.dataset_id, prepared, destination, None)
    await _run(session, feed, None, None, bytes_total=origin.size_bytes)


async def _run(
    session: Session,
    feed: Feed,
    on_progress: ProgressCallback | None,
    on_event: EventCallback | None,
    *,
    bytes_total: int | None = None,
) -> Outcome:
    """Move the one object of *feed* and return its outcome; raises its error."""
    run = session.engine.run(feed, on_progress=on_progress, on_event=on_event, objects_total=1, bytes_total=bytes_total)
    async with run as outcomes:
        found = [outcome async for outcome in outcomes]
    if not found:
        raise ConfigError("the engine of this client is being drained: it begins nothing new")
    if found[0].error is not None:
        raise found[0].error
    return found[0]
