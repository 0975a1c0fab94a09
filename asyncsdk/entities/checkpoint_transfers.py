"""How weights travel: one object, prepared, moved, committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from asyncsdk.domain.ids import make_id
from asyncsdk.domain.paths import path_below
from asyncsdk.engine import Download, Feed, Outcome, ProgressCallback, Source, Upload
from asyncsdk.entities.local_files import is_source, known_size
from asyncsdk.entities.session import Session
from asyncsdk.errors import AsyncSDKError, ConfigError, MalformedResponse
from asyncsdk.protocol.checkpoints import (
    CheckpointRecord,
    CommitCheckpoint,
    PrepareCheckpoint,
    PrepareCheckpointDownload,
)
from asyncsdk.protocol.uploads import RenewEntry, RenewUploads
from asyncsdk.targets import MultipartTarget, Origin, Target

__all__ = ["download_checkpoint", "upload_checkpoint"]


class _UploadFeed:
    """One object for a model: prepared when it is taken, committed when it is settled."""

    def __init__(self, session: Session, model_id: str, source: Source, facts: Mapping[str, Any]) -> None:
        self._session = session
        self._model_id = model_id
        self._source = source
        self._is_taken = False
        self._facts = dict(facts)
        self._checkpoint_id = make_id()
        self._key = ""

    async def take(self, want: int) -> Sequence[Upload]:
        if self._is_taken:
            return ()
        self._is_taken = True
        source = self._source
        size = await known_size(source)
        prepared = await self._session.send(PrepareCheckpoint(model_id=self._model_id, size_bytes=size))
        if prepared.key is None or prepared.target is None:
            raise MalformedResponse("the platform prepared a checkpoint without saying where it goes")
        self._key = prepared.key
        upload = Upload(source, prepared.target, size_bytes=size)
        if isinstance(source, (str, PathLike)):
            self._facts.setdefault("filename", Path(source).name)
        return (upload,)

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        assert isinstance(transfer, Upload)
        target = transfer.target
        entry = RenewEntry(
            key=self._key,
            size_bytes=transfer.size_bytes,
            upload_id=target.upload_id if isinstance(target, MultipartTarget) else None,
            first_part=first_part,
        )
        renewed = await self._session.send(RenewUploads(scope_id=self._model_id, entries=(entry,)))
        fresh: Target = renewed.targets[0]
        return fresh

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            if not outcome.ok or outcome.crc32c is None:
                continue
            message = CommitCheckpoint(
                model_id=self._model_id,
                checkpoint_id=self._checkpoint_id,
                key=self._key,
                size_bytes=outcome.size_bytes,
                crc32c=outcome.crc32c,
                **self._facts,
            )
            try:
                outcome.reply = await self._session.send(message)
            except AsyncSDKError as error:
                outcome.status, outcome.error = "failed", error
        return outcomes


async def upload_checkpoint(
    session: Session,
    model_id: str,
    source: Source,
    facts: Mapping[str, Any],
    *,
    on_progress: ProgressCallback | None,
) -> CheckpointRecord:
    """Upload weights and return the checkpoint they became; *facts* are the other fields of `CommitCheckpoint`."""
    if not is_source(source):
        raise ConfigError(
            f"a checkpoint is a path, bytes, an open binary file or an iterable of bytes, not {type(source).__name__}"
        )
    # Refused before a byte moves: nobody should wait for an hour to hear that epoch must be positive.
    CommitCheckpoint(
        model_id=model_id, checkpoint_id=make_id(), key=f"{'0' * 24}-{'0' * 32}", size_bytes=0, crc32c="0" * 8, **facts
    )
    outcome = await _run(session, _UploadFeed(session, model_id, source, facts), on_progress)
    record = outcome.reply
    if not isinstance(record, CheckpointRecord):
        raise MalformedResponse(f"the platform committed a checkpoint and answered {type(record).__name__}")
    return record


class _DownloadFeed:
    """One checkpoint to fetch."""

    def __init__(self, session: Session, record: CheckpointRecord, destination: Path) -> None:
        self._session = session
        self._record = record
        self._destination: Path | None = destination

    async def _origin(self) -> Origin:
        message = PrepareCheckpointDownload(model_id=self._record.model_id, checkpoint_id=self._record.id)
        origin: Origin = (await self._session.send(message)).origin
        return origin

    async def take(self, want: int) -> Sequence[Download]:
        if self._destination is None:
            return ()
        destination, self._destination = self._destination, None
        return (Download(await self._origin(), destination),)

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        return await self._origin()

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return outcomes


async def download_checkpoint(
    session: Session,
    record: CheckpointRecord,
    destination: str | PathLike[str],
    *,
    on_progress: ProgressCallback | None,
) -> None:
    """Download the weights of *record* into *destination*."""
    path = Path(destination)
    if path.is_dir():
        path = path_below(path, record.filename or f"{record.id}.bin")
    await _run(session, _DownloadFeed(session, record, path), on_progress, bytes_total=record.size_bytes)


async def _run(
    session: Session, feed: Feed, on_progress: ProgressCallback | None, *, bytes_total: int | None = None
) -> Outcome:
    """Move the one object of *feed* and return its outcome; raises its error."""
    run = session.engine.run(feed, on_progress=on_progress, objects_total=1, bytes_total=bytes_total)
    async with run as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    if outcome.error is not None:
        raise outcome.error
    return outcome
