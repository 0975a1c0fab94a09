"""How the image of a project travels: one small object, prepared, moved, committed."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import anyio.to_thread

from asyncsdk.domain.images import HEAD_BYTES, MAX_IMAGE_BYTES, image_type
from asyncsdk.domain.paths import path_below
from asyncsdk.engine import Transfer
from asyncsdk.entities.local_files import known_size
from asyncsdk.entities.session import Session
from asyncsdk.entities.single_objects import SingleDownload, SingleUpload, run_one
from asyncsdk.errors import ConfigError, MalformedResponse
from asyncsdk.os_errors import os_errors
from asyncsdk.protocol.projects import (
    CommitProjectImage,
    PrepareProjectImage,
    PrepareProjectImageDownload,
    ProjectRecord,
)
from asyncsdk.targets import Origin

__all__ = ["ImageSource", "download_image", "upload_image"]

ImageSource = str | PathLike[str] | bytes
"""A file, or its bytes."""


class _UploadFeed(SingleUpload):
    """The image of a project."""

    def __init__(self, session: Session, project_id: str, source: Path | bytes, filename: str) -> None:
        super().__init__(session, project_id, source)
        self._filename = filename

    async def _begin(self, size: int | None) -> Transfer:
        prepared = await self._session.send(PrepareProjectImage(project_id=self._scope_id, size_bytes=size))
        return self._upload(prepared, "an image", size)

    async def _commit(self, size_bytes: int, crc32c: str) -> ProjectRecord:
        message = CommitProjectImage(
            project_id=self._scope_id,
            key=self._key,
            size_bytes=size_bytes,
            crc32c=crc32c,
            filename=self._filename,
        )
        return await self._session.send(message)


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
    outcome = await run_one(session, _UploadFeed(session, project_id, given, filename))
    if not isinstance(outcome.reply, ProjectRecord):
        raise MalformedResponse(f"the platform committed an image and answered {type(outcome.reply).__name__}")
    return outcome.reply


async def download_image(session: Session, project_id: str, destination: str | PathLike[str]) -> Path:
    """Fetch the image of a project; see `AsyncProject.download_image`."""
    prepared = await session.send(PrepareProjectImageDownload(project_id=project_id))
    path = Path(destination)
    if await anyio.to_thread.run_sync(path.is_dir):
        path = path_below(path, prepared.filename)

    async def origin() -> Origin:
        again: Origin = (await session.send(PrepareProjectImageDownload(project_id=project_id))).origin
        return again

    await run_one(session, SingleDownload(session, origin, path, first=prepared.origin))
    return path


def _head(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:HEAD_BYTES]
    with os_errors("source", source=str(source)), source.open("rb") as file:
        return file.read(HEAD_BYTES)
