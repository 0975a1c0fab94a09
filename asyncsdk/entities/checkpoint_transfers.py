"""How weights travel: one object, prepared, moved, committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from asyncsdk.domain.ids import make_id
from asyncsdk.domain.paths import path_below
from asyncsdk.engine import EventCallback, Outcome, ProgressCallback, Source, Transfer, Upload
from asyncsdk.engine.journal import LargeState
from asyncsdk.entities.download_books import DownloadBooks
from asyncsdk.entities.local_files import is_source
from asyncsdk.entities.patience import patient
from asyncsdk.entities.resuming import check_resume, jsonable, keeping, named_path, run_record
from asyncsdk.entities.session import Session
from asyncsdk.entities.single_books import SingleBooks
from asyncsdk.entities.single_objects import SingleDownload, SingleUpload, run_one
from asyncsdk.entities.verifying import ComparisonCallback, Verification
from asyncsdk.entities.verifying_folder import compare_file
from asyncsdk.errors import (
    AsyncSDKError,
    ConfigError,
    MalformedResponse,
)
from asyncsdk.protocol.checkpoints import (
    CheckpointRecord,
    CommitCheckpoint,
    PrepareCheckpoint,
    PrepareCheckpointDownload,
)
from asyncsdk.targets import Origin

__all__ = ["download_checkpoint", "upload_checkpoint", "verify_checkpoint"]


class _UploadFeed(SingleUpload):
    """Weights of a model."""

    def __init__(
        self,
        session: Session,
        model_id: str,
        source: Source,
        facts: Mapping[str, Any],
        books: SingleBooks | None,
        checkpoint_id: str | None,
        check_source: Callable[[], None] | None,
    ) -> None:
        super().__init__(session, model_id, source, books)
        self._facts = dict(facts)
        self._checkpoint_id = self._fresh_id = checkpoint_id or make_id()
        self._check_source = check_source
        if isinstance(source, (str, PathLike)):
            self._facts.setdefault("filename", Path(source).name)

    async def _begin(self, size: int | None) -> Transfer:
        told = {name: value for name, value in self._facts.items() if name != "filename"}
        prepared = await self._session.send(PrepareCheckpoint(model_id=self._scope_id, size_bytes=size, **told))
        upload = self._upload(prepared, "a checkpoint", size)
        state = None
        if self._books is not None:
            state = self._books.begin(key=self._key, committed_id=self._checkpoint_id)
        if state is not None:
            state.follow(upload)
        return upload

    def _take_up(self, begun: LargeState) -> None:
        super()._take_up(begun)
        self._checkpoint_id = begun.facts["committed_id"]

    def _start_over(self) -> None:
        super()._start_over()
        self._checkpoint_id = self._fresh_id

    async def _commit(self, size_bytes: int, crc32c: str) -> CheckpointRecord:
        message = CommitCheckpoint(
            model_id=self._scope_id,
            checkpoint_id=self._checkpoint_id,
            key=self._key,
            size_bytes=size_bytes,
            crc32c=crc32c,
            **self._facts,
        )
        return await self._session.send(message)

    async def examine_again(self, transfer: Upload) -> Transfer | None:
        # Who checks the source means certain bytes, not what has come in their place.
        return await super().examine_again(transfer) if self._check_source is None else None

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            if self._check_source is not None and outcome.status == "done":
                try:
                    self._check_source()
                except AsyncSDKError as error:
                    outcome.status, outcome.error = "failed", error
        return await super().settle(outcomes)


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
    is_patient: bool = True,
) -> CheckpointRecord:
    """Upload weights and return the checkpoint they became; *facts* are the other fields of `CommitCheckpoint`.

    A *checkpoint_id* is for one that may be sent again; None: a new one. *check_source* is called when all bytes were
    sent, and raises when they are not those that were meant: then there is no checkpoint. *is_patient*: messages wait
    for a platform that is out; not for who tries again later, perhaps with other weights.
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
        books = None if kept.journal is None else SingleBooks(kept.journal)
        told = patient(session) if is_patient else session
        feed = _UploadFeed(told, model_id, source, facts, books, checkpoint_id, check_source)
        outcome = await run_one(session, feed, on_progress, on_event)
        kept.is_complete = True
    record = outcome.reply
    if not isinstance(record, CheckpointRecord):
        raise MalformedResponse(f"the platform committed a checkpoint and answered {type(record).__name__}")
    return record


def _download(session: Session, record: CheckpointRecord, path: Path, books: DownloadBooks | None) -> SingleDownload:
    """Return the feed that fetches one checkpoint."""

    async def origin() -> Origin:
        message = PrepareCheckpointDownload(model_id=record.model_id, checkpoint_id=record.id)
        found: Origin = (await session.send(message)).origin
        return found

    return SingleDownload(session, origin, path, books=books, name=record.id)


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
        identity={"checkpoint": record.id, "to": named_path(path, True)},
        arguments={"model": record.model_id, "checkpoint": record.id},
    )
    async with keeping(session.settings, run, on_event) as kept:
        feed = _download(patient(session), record, path, None if kept.journal is None else DownloadBooks(kept.journal))
        await run_one(session, feed, on_progress, on_event, bytes_total=record.size_bytes)
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
