"""How the image of a project travels: one small object, prepared, moved, committed."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import anyio.to_thread

from asyncsdk.domain.images import HEAD_BYTES, MAX_IMAGE_BYTES, image_type
from asyncsdk.domain.paths import path_below
from asyncsdk.engine import Download, Feed, Outcome, Transfer, Upload
from asyncsdk.entities.local_files import known_size
from asyncsdk.entities.session import Session
from asyncsdk.errors import AsyncSDKError, ConfigError, MalformedResponse, os_errors
from asyncsdk.protocol.projects import (
    CommitProjectImage,
    PrepareProjectImage,
    PrepareProjectImageDownload,
    ProjectRecord,
)
from asyncsdk.protocol.uploads import RenewEntry, RenewUploads
from asyncsdk.targets import MultipartTarget, Origin, ResumableTarget, Target

__all__ = ["ImageSource", "download_image", "upload_image"]

ImageSource = str | PathLike[str] | bytes
"""A file, or its bytes."""


class _UploadFeed:
    """One image: prepared when it is taken, committed when it is settled."""

    def __init__(self, session: Session, project_id: str, source: Path | bytes, filename: str, size: int) -> None:
        self._session = session
        self._project_id = project_id
        self._source = source
        self._filename = filename
        self._size = size
        self._key = ""
        self._is_taken = False

    async def take(self, want: int) -> Sequence[Transfer]:
        if self._is_taken:
            return ()
        self._is_taken = True
        prepared = await self._session.send(PrepareProjectImage(project_id=self._project_id, size_bytes=self._size))
        if prepared.key is None or prepared.target is None:
            raise MalformedResponse("the platform prepared an image without saying where it goes")
        self._key = prepared.key
        return (Upload(self._source, prepared.target, size_bytes=self._size),)

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        assert isinstance(transfer, Upload)
        target = transfer.target
        upload_id = target.upload_id if isinstance(target, (MultipartTarget, ResumableTarget)) else None
        entry = RenewEntry(key=self._key, size_bytes=self._size, upload_id=upload_id, first_part=first_part)
        renewed = await self._session.send(RenewUploads(scope_id=self._project_id, entries=(entry,)))
        again: Target = renewed.targets[0]
        return again

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            if not outcome.ok or outcome.crc32c is None:
                continue
            message = CommitProjectImage(
                project_id=self._project_id,
                key=self._key,
                size_bytes=outcome.size_bytes,
                crc32c=outcome.crc32c,
                filename=self._filename,
            )
            try:
                outcome.reply = await self._session.send(message)
            except AsyncSDKError as error:
                outcome.status, outcome.error = "failed", error
        return outcomes


class _DownloadFeed:
    """One image to fetch."""

    def __init__(self, session: Session, project_id: str, origin: Origin, destination: Path) -> None:
        self._session = session
        self._project_id = project_id
        self._waiting: list[Download] = [Download(origin, destination)]

    async def take(self, want: int) -> Sequence[Transfer]:
        taken, self._waiting = self._waiting, []
        return taken

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        prepared = await self._session.send(PrepareProjectImageDownload(project_id=self._project_id))
        origin: Origin = prepared.origin
        return origin

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return outcomes


async def upload_image(session: Session, project_id: str, source: ImageSource) -> ProjectRecord:
    """Make *source* the image of a project; see `AsyncProject.upload_image`."""
    if not isinstance(source, (str, PathLike, bytes)):
        raise ConfigError(f"a project's image is a path or bytes, not {type(source).__name__}")
    given = source if isinstance(source, bytes) else Path(source)
    size = await known_size(given)
    kind = image_type(await anyio.to_thread.run_sync(_head, given))
    if kind is None or size is None:
        raise ConfigError("a project's image is a PNG, JPEG, GIF, WebP or BMP file; this is none of them")
    if size > MAX_IMAGE_BYTES:
        raise ConfigError(f"a project's image has at most {MAX_IMAGE_BYTES} bytes, this one has {size}")
    filename = f"image.{kind}" if isinstance(given, bytes) else given.name
    outcome = await _run(session, _UploadFeed(session, project_id, given, filename, size))
    if not isinstance(outcome.reply, ProjectRecord):
        raise MalformedResponse(f"the platform committed an image and answered {type(outcome.reply).__name__}")
    return outcome.reply


async def download_image(session: Session, project_id: str, destination: str | PathLike[str]) -> Path:
    """Fetch the image of a project; see `AsyncProject.download_image`."""
    prepared = await session.send(PrepareProjectImageDownload(project_id=project_id))
    path = Path(destination)
    if await anyio.to_thread.run_sync(path.is_dir):
        path = path_below(path, prepared.filename)
    await _run(session, _DownloadFeed(session, project_id, prepared.origin, path))
    return path


def _head(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:HEAD_BYTES]
    with os_errors("source", source=str(source)), source.open("rb") as file:
        return file.read(HEAD_BYTES)


async def _run(session: Session, feed: Feed) -> Outcome:
    async with session.engine.run(feed, objects_total=1) as outcomes:
        found = [outcome async for outcome in outcomes]
    if not found:
        raise ConfigError("the engine of this client is being drained: it begins nothing new")
    if found[0].error is not None:
        raise found[0].error
    return found[0]
