"""Looking at sources and files of this machine before anything moves."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import AsyncIterable, Callable
from os import PathLike
from pathlib import Path
from typing import Any

import anyio.to_thread

from asyncsdk.checksums import Crc32c
from asyncsdk.engine import Source
from asyncsdk.errors import SourceChanged, SourceUnreadable
from asyncsdk.os_errors import os_errors

__all__ = ["checksum_of_file", "is_source", "known_size"]

_READ_BYTES = 1024 * 1024


def checksum_of_file(
    path: Path | str, size_bytes: int | None = None, *, on_read: Callable[[int], None] | None = None
) -> str:
    """Return the crc32c of a file as eight hexadecimal digits. Blocking; memory 1 MiB.

    Args:
        path: The file.
        size_bytes: How many bytes it must have, when known.
        on_read: Told of bytes that were read; what it raises ends the reading.

    Raises:
        SourceChanged: It has not *size_bytes* (any more).
        SourceNotFound, SourceUnreadable: It is not there or cannot be read.
    """
    checksum = Crc32c()
    with os_errors("source", source=str(path)), open(path, "rb", buffering=0) as file:  # noqa: PTH123
        while data := file.read(_READ_BYTES):
            checksum.update(data)
            if on_read is not None:
                on_read(len(data))
    if size_bytes is not None and checksum.size_bytes != size_bytes:
        raise SourceChanged(
            f"{path}: has {checksum.size_bytes} bytes, {size_bytes} when it was looked at; it is being changed",
            source=str(path),
        )
    return checksum.hex()


def is_source(value: object) -> bool:
    """Whether bytes can be read from *value*."""
    if isinstance(value, (str, PathLike, bytes, bytearray, memoryview, AsyncIterable)):
        return True
    return hasattr(value, "read")


async def known_size(source: Source) -> int | None:
    """Return how many bytes *source* gives, or None when only reading it tells.

    Raises:
        SourceNotFound, SourceUnreadable: It is a path that is not there, or no regular file.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return memoryview(source).nbytes
    if isinstance(source, (str, PathLike)):
        return await anyio.to_thread.run_sync(_size_of_path, Path(source))
    return _size_of_open_file(source)


def _size_of_path(path: Path) -> int:
    with os_errors("source", source=str(path)):
        facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        kind = "a folder; give the file in it" if stat.S_ISDIR(facts.st_mode) else "no regular file"
        raise SourceUnreadable(f"{path}: is {kind}", source=str(path))
    return facts.st_size


def _size_of_open_file(source: Any) -> int | None:
    inner = getattr(source, "file", source)  # tempfile's wrappers
    raw = inner.raw if isinstance(inner, (io.BufferedReader, io.BufferedRandom)) else inner
    if not isinstance(raw, io.FileIO):
        return None
    facts = os.fstat(raw.fileno())
    return max(0, facts.st_size - inner.tell()) if stat.S_ISREG(facts.st_mode) else None
