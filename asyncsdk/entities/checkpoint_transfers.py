"""How weights travel: one object, prepared, moved, committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from asyncsdk.checksums import crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.domain.paths import path_below
from asyncsdk.engine import Download, EventCallback, Feed, Outcome, ProgressCallback, Skipped, Source, Transfer, Upload
from asyncsdk.engine.journal import LargeState
from asyncsdk.entities.checkpoint_books import CheckpointBooks
from asyncsdk.entities.download_books import DownloadBooks
from asyncsdk.entities.local_files import is_source, known_size
from asyncsdk.entities.resuming import check_resume, jsonable, keeping, named_path, run_record
from asyncsdk.entities.session import Session
from asyncsdk.entities.verifying import ComparisonCallback, Verification
from asyncsdk.entities.verifying_folder import compare_file
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ChecksumMismatch,
    ConfigError,
    MalformedResponse,
    NotFound,
    PermissionDenied,
)
from asyncsdk.protocol.checkpoints import (
    CheckpointRecord,
    CommitCheckpoint,
    PrepareCheckpoint,
    PrepareCheckpointDownload,
)
from asyncsdk.protocol.uploads import RenewEntry, RenewUploads
from asyncsdk.targets import MultipartTarget, Origin, ResumableTarget, Target

__all__ = ["download_checkpoint", "upload_checkpoint", "verify_checkpoint"]


class _UploadFeed:
    """One object for a model: prepared when it is taken, committed when it is settled."""

    def __init__(
        self,
        session: Session,
        model_id: str,
        source: Source,
        facts: Mapping[str, Any],
        books: CheckpointBooks | None,
        checkpoint_id: str | None,
        check_source: Callable[[], None] | None,
    ) -> None:
        self.judges_uploads = True  # the platform compares size and checksum before it makes a checkpoint of it
        self._session = session
        self._model_id = model_id
        self._source = source
        self._is_taken = False
        self._facts = dict(facts)
        self._books = books
        self._checkpoint_id = checkpoint_id or make_id()
        self._check_source = check_source
        self._key = ""
        if isinstance(source, (str, PathLike)):
            self._facts.setdefault("filename", Path(source).name)

    async def take(self, want: int) -> Sequence[Transfer]:
        if self._is_taken:
            return ()
        self._is_taken = True
        size = await known_size(self._source)
        begun = None if self._books is None else await self._books.recall(self._source)
        going_on = None if begun is None or size is None else await self._go_on(begun, size)
        return (await self._begin(size) if going_on is None else going_on,)

    async def _begin(self, size: int | None) -> Transfer:
        told = {name: value for name, value in self._facts.items() if name != "filename"}
        prepared = await self._session.send(PrepareCheckpoint(model_id=self._model_id, size_bytes=size, **told))
        if prepared.key is None or prepared.target is None:
            raise MalformedResponse("the platform prepared a checkpoint without saying where it goes")
        self._key = prepared.key
        upload = Upload(self._source, prepared.target, size_bytes=size)
        state = None
        if self._books is not None:
            state = self._books.begin(key=prepared.key, checkpoint_id=self._checkpoint_id)
        if state is not None:
            upload.resume = state.resume()
        return upload

    async def _go_on(self, begun: LargeState, size: int) -> Transfer | None:
        """Return how an upload goes on that an earlier run began; None: not at all."""
        self._key, checkpoint_id = begun.facts["key"], begun.facts["checkpoint_id"]
        fresh_id, self._checkpoint_id = self._checkpoint_id, checkpoint_id
        whole = begun.whole_crc32c(size)
        crc32c = begun.facts.get("arrived") or (None if whole is None else crc32c_hex(whole))
        name = str(self._source)
        try:
            if isinstance(crc32c, str):
                record = await self._commit(size, crc32c)
                return Skipped(name, size, reply=record)
        except (BadRequest, NotFound):  # its bytes did not arrive whole, or are gone
            pass
        try:
            target = await self._renewed(size, begun.facts.get("upload_id"), 1)
            return Upload(self._source, target, size_bytes=size, resume=begun.resume())
        except (BadRequest, NotFound, PermissionDenied):  # too old, or of an earlier configuration
            begun.forget()
            self._checkpoint_id = fresh_id
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
        renewed = await self._session.send(RenewUploads(scope_id=self._model_id, entries=(entry,)))
        fresh: Target = renewed.targets[0]
        return fresh

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            if isinstance(outcome.error, ChecksumMismatch) and self._books is not None:
                self._books.came_out_wrong()
            if not outcome.ok or outcome.crc32c is None:
                continue
            if self._books is not None:
                await self._books.arrived(outcome.crc32c)
            try:
                if self._check_source is not None:
                    self._check_source()
                outcome.reply = await self._commit(outcome.size_bytes, outcome.crc32c)
            except AsyncSDKError as error:
                outcome.status, outcome.error = "failed", error
        return outcomes

    async def _commit(self, size_bytes: int, crc32c: str) -> CheckpointRecord:
        message = CommitCheckpoint(
            model_id=self._model_id,
            checkpoint_id=self._checkpoint_id,
            key=self._key,
            size_bytes=size_bytes,
            crc32c=crc32c,
            **self._facts,
        )
        return await self._session.send(message)


async def upload_checkpoint(
    session: Session,
    model_id: str,
    source: Source,
    facts: Mapping[str, Any],
    *,
    resume: bool | str,
    on_progress: ProgressCallback | None,
    on_event: EventCallback | None,
    checkpoint_id: str | None = None,
    check_source: Callable[[], None] | None = None,
) -> CheckpointRecord:
    """Upload weights and return the checkpoint they became; *facts* are the other fields of `CommitCheckpoint`.

    A *checkpoint_id* is for one that may be sent again; None: a new one. *check_source* is called when all bytes were
    sent, and raises when they are not those that were meant: then there is no checkpoint.
    """
    if not is_source(source):
        raise ConfigError(
            f"a checkpoint is a path, bytes, an open binary file or an iterable of bytes, not {type(source).__name__}"
        )
    # Refused before a byte moves: nobody should wait for an hour to hear that epoch must be positive.
    CommitCheckpoint(
        model_id=model_id, checkpoint_id=make_id(), key=f"{'0' * 24}-{'0' * 32}", size_bytes=0, crc32c="0" * 8, **facts
    )
    check_resume(resume)
    run = run_record(
        session,
        "checkpoint_upload",
        named_path(source, resume),
        identity={"model": model_id, "facts": jsonable(facts)},
        arguments={"model": model_id, "facts": jsonable(facts)},
        is_rebuildable="metadata" not in facts,
    )
    async with keeping(session.settings, run, on_event) as kept:
        books = None if kept.journal is None else CheckpointBooks(kept.journal)
        feed = _UploadFeed(session, model_id, source, facts, books, checkpoint_id, check_source)
        outcome = await _run(session, feed, on_progress, on_event)
        kept.is_complete = True
    record = outcome.reply
    if not isinstance(record, CheckpointRecord):
        raise MalformedResponse(f"the platform committed a checkpoint and answered {type(record).__name__}")
    return record


class _DownloadFeed:
    """One checkpoint to fetch."""

    def __init__(
        self, session: Session, record: CheckpointRecord, destination: Path, books: DownloadBooks | None
    ) -> None:
        self._session = session
        self._record = record
        self._books = books
        self._destination: Path | None = destination

    async def _origin(self) -> Origin:
        message = PrepareCheckpointDownload(model_id=self._record.model_id, checkpoint_id=self._record.id)
        origin: Origin = (await self._session.send(message)).origin
        return origin

    async def take(self, want: int) -> Sequence[Download]:
        if self._destination is None:
            return ()
        destination, self._destination = self._destination, None
        download = Download(await self._origin(), destination)
        name = self._record.id
        if self._books is not None and self._record.size_bytes > self._session.engine.config.multipart_threshold:
            download.received = (await self._books.receive([name]))[name]
        return (download,)

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        return await self._origin()

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return outcomes


async def download_checkpoint(
    session: Session,
    record: CheckpointRecord,
    destination: str | PathLike[str],
    *,
    resume: bool | str,
    on_progress: ProgressCallback | None,
    on_event: EventCallback | None,
) -> None:
    """Download the weights of *record* into *destination*."""
    path = _file_of(record, destination)
    check_resume(resume)
    run = run_record(
        session,
        "checkpoint_download",
        named_path(path, resume),
        identity={"checkpoint": record.id},
        arguments={"model": record.model_id, "checkpoint": record.id},
    )
    async with keeping(session.settings, run, on_event) as kept:
        feed = _DownloadFeed(session, record, path, None if kept.journal is None else DownloadBooks(kept.journal))
        await _run(session, feed, on_progress, on_event, bytes_total=record.size_bytes)
        kept.is_complete = True


async def verify_checkpoint(
    record: CheckpointRecord,
    file: str | PathLike[str],
    *,
    on_progress: ProgressCallback | None,
    on_comparison: ComparisonCallback | None,
) -> Verification:
    """Compare *file* with the weights of *record*."""
    path = _file_of(record, file)
    return await compare_file(
        path,
        name=path.name,
        size_bytes=record.size_bytes,
        crc32c=record.crc32c,
        on_progress=on_progress,
        on_comparison=on_comparison,
    )


def _file_of(record: CheckpointRecord, path: str | PathLike[str]) -> Path:
    """Return *path*; when it is a folder, the file in it that has the checkpoint's name."""
    found = Path(path)
    return path_below(found, record.filename or f"{record.id}.bin") if found.is_dir() else found


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
