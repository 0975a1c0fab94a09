"""Sources of uploads, opened: one class per kind, all giving parts.

`open_source` decides the kind; what sends parts never asks for it. Files (by path, or open ones that are real files)
are read where the transport needs them and hold no memory; what can only be read in order is in `streams`.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import AsyncIterable
from pathlib import Path
from typing import IO, Any, Protocol

from asyncsdk.checksums import Crc32c, crc32c
from asyncsdk.engine.parts import MemoryPart, Part
from asyncsdk.engine.seen import SeenFile, check_seen, source_changed
from asyncsdk.engine.streams import StreamSource
from asyncsdk.engine.transfers import Upload
from asyncsdk.engine.work import SMALL_BYTES, Work
from asyncsdk.errors import SourceChanged, SourceUnreadable
from asyncsdk.os_errors import os_error, os_errors
from asyncsdk.transport.base import Body, FileBody
from asyncsdk.transport.threads import Threads

__all__ = [
    "FilePart",
    "FileSource",
    "MemorySource",
    "OpenSource",
    "fitting_size",
    "open_file",
    "open_source",
    "read_or_open",
]

_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)
"""Without O_NONBLOCK, opening a named pipe would wait for a writer."""

_TYPE_BITS = 0o170000
_STEP_BYTES = 16 * 1024 * 1024
"""Read between two looks at whether the work was cancelled."""


class OpenSource(Protocol):
    """A source that is ready to be read."""

    size_bytes: int | None
    """How many bytes it gives; None: not known before its end."""

    async def next_part(self, size_bytes: int) -> Part | None:
        """Return the next *size_bytes* (fewer at the end), or None at the end. Waits for memory if it needs some."""

    async def check_unchanged(self) -> None:
        """Raise `SourceChanged` when the source is not what it was when it was opened."""

    async def aclose(self) -> None:
        """Close what was opened here."""


async def open_source(work: Work) -> OpenSource:
    """Open the source of an upload.

    Raises:
        SourceNotFound, SourceUnreadable: It is not there, or no file.
        SourceChanged: It has not the size that was announced.
    """
    upload = work.transfer
    assert isinstance(upload, Upload)
    source, threads, checks = upload.source, work.resources.threads, work.resources.config.checks_source
    opened: MemorySource | FileSource | None
    if isinstance(source, (str, Path)):
        opened = await threads.run(_open_path, source, checks, threads, undo=_close_quickly)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        opened = MemorySource(source, seen=upload.read_from if checks else None, threads=threads)
    elif isinstance(source, AsyncIterable):
        return StreamSource(work, upload.name, pieces=source)
    elif hasattr(source, "read") and not isinstance(source, str):
        opened = await threads.run(_open_region, source, upload.name, checks, undo=_close_quickly)
        if opened is None:
            return StreamSource(work, upload.name, file=source)
    else:
        raise SourceUnreadable(
            f"a source is a path, bytes, an open binary file or an asynchronous iterable, not {type(source).__name__}",
            source=upload.name,
        )
    try:
        opened.cut_at(fitting_size(upload, opened.size_bytes or 0, accepts=not checks))
    except SourceChanged:
        await opened.aclose()
        raise
    return opened


def fitting_size(upload: Upload, size_bytes: int, *, accepts: bool) -> int:
    """Return how many bytes of the source of *upload*, which has *size_bytes* when it is opened, are to be sent.

    Args:
        accepts: Whether a file may have grown since it was announced; what was announced is sent of it then.

    Raises:
        SourceChanged: It has not the size that was announced.
    """
    announced = upload.size_bytes
    if announced is None or size_bytes == announced:
        return size_bytes
    if not accepts or isinstance(upload.source, (bytes, bytearray, memoryview)):
        raise SourceChanged(
            f"{upload.name}: has {size_bytes} bytes, {announced} were announced; it was changed since "
            "it was looked at, upload it again",
            source=upload.name,
        )
    if size_bytes < announced:
        raise SourceChanged(
            f"{upload.name}: has {size_bytes} bytes, {announced} were announced; a file that became shorter cannot be "
            "sent as it was, upload it again",
            source=upload.name,
        )
    return announced


# --- memory --------------------------------------------------------------------------------------------------


class MemorySource:
    """Bytes of the caller, or of a small file: they are there already and need no lease.

    Args:
        checksum: Their crc32c, if it is known.
        seen: The file they were read from, to be looked at again; None: there is none, or nobody looks.
        threads: Who looks, while files answer slowly.
    """

    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        checksum: int | None = None,
        *,
        seen: SeenFile | None = None,
        threads: Threads | None = None,
    ) -> None:
        view = memoryview(data)
        if not view.contiguous:
            view = memoryview(view.tobytes())
        self._view = view.cast("B")
        self._whole = data if isinstance(data, bytes) else None
        self._checksum = checksum
        self._seen = seen
        self._threads = threads
        self._offset = 0
        self.size_bytes: int | None = len(self._view)

    async def next_part(self, size_bytes: int) -> Part | None:
        if self._offset >= len(self._view):
            return None
        start, self._offset = self._offset, self._offset + size_bytes
        if start == 0 and self._offset >= len(self._view):
            return MemoryPart(self._view if self._whole is None else self._whole, checksum=self._checksum)
        return MemoryPart(self._view[start : self._offset])

    def cut_at(self, size_bytes: int) -> None:
        """Give no more than *size_bytes*. Before anything was given."""
        if size_bytes < len(self._view):
            self._view = self._view[:size_bytes]
            self._whole = self._checksum = None
            self.size_bytes = size_bytes

    async def check_unchanged(self) -> None:
        if self._seen is None:
            return
        if self._threads is None:
            check_seen(self._seen)
        else:
            await self._threads.glance(check_seen, self._seen)

    def check_unchanged_now(self) -> None:
        """Raise `SourceChanged` when the file they were read from is not what it was, if that is checked. Blocking."""
        if self._seen is not None:
            check_seen(self._seen)

    async def aclose(self) -> None:
        """Nothing was opened."""

    def close(self) -> None:
        """Nothing was opened."""


# --- files ---------------------------------------------------------------------------------------------------


class FilePart:
    """A stretch of a file, read while it is sent."""

    def __init__(self, source: FileSource, start: int, stop: int) -> None:
        self._source = source
        self._start = start
        self._stop = stop

    @property
    def size_bytes(self) -> int:
        """How many bytes of the file it covers."""
        return self._stop - self._start

    def body(self) -> Body:
        source = self._source
        return FileBody(source.fd, self._start, self._stop, name=source.name, checksum=Crc32c())

    async def sent_crc32c(self, work: Work, body: Body) -> int:
        assert isinstance(body, FileBody)
        assert body.checksum is not None
        return body.checksum.value

    async def crc32c(self, work: Work) -> int:
        checksum = Crc32c()
        body = FileBody(self._source.fd, self._start, self._stop, name=self._source.name, checksum=checksum)

        def step() -> bool:
            limit = checksum.size_bytes + _STEP_BYTES
            while checksum.size_bytes < min(limit, body.size_bytes):
                body.read(checksum.size_bytes, 1024 * 1024)
            return checksum.size_bytes < body.size_bytes

        await work.resources.threads.run_in_steps(step)
        return checksum.value

    def release(self) -> None:
        """It holds no memory."""


class FileSource:
    """An open file, from *start* to the end it had when it was opened.

    Args:
        fd: Own descriptor; closed by `aclose`.
        path: Looked at again afterwards; None: the descriptor is.
        check: Whether it is looked at again at all.
    """

    def __init__(
        self,
        fd: int,
        name: str,
        facts: os.stat_result,
        *,
        start: int = 0,
        path: Path | str | None = None,
        check: bool = True,
    ) -> None:
        self.fd = fd
        self.name = name
        self.start = start
        self.stop = max(start, facts.st_size)
        self.size_bytes: int | None = self.stop - start
        self._path = path
        self._check = check
        self._identity = _identity(facts)
        self._offset = start

    @property
    def identity(self) -> tuple[int, int, int]:
        """Size, time of the last change (ns) and inode that the file had when it was opened."""
        return self._identity[:3]

    async def next_part(self, size_bytes: int) -> Part | None:
        if self._offset >= self.stop:
            return None
        start, self._offset = self._offset, min(self._offset + size_bytes, self.stop)
        return FilePart(self, start, self._offset)

    def cut_at(self, size_bytes: int) -> None:
        """Give no more than *size_bytes*. Before anything was given."""
        self.stop = min(self.stop, self.start + size_bytes)
        self.size_bytes = self.stop - self.start

    def read_at(self, size_bytes: int, offset: int) -> bytes:
        """Return up to *size_bytes* (at least one) from *offset*, counted from where the source starts. Blocking."""
        with os_errors("source", source=self.name):
            data = os.pread(self.fd, size_bytes, self.start + offset)
        if not data and size_bytes:
            raise source_changed(self.name, "became shorter")
        return data

    async def check_unchanged(self) -> None:
        # One stat call, 1 us: a thread would cost more. What the file system may block on was opened and read before.
        self.check_unchanged_now()

    def check_unchanged_now(self) -> None:
        """Raise `SourceChanged` when size, time or inode differ, if that is to be checked. Blocking."""
        if not self._check:
            return
        try:
            facts = os.fstat(self.fd) if self._path is None else os.stat(self._path)  # noqa: PTH116
        except OSError as error:
            raise source_changed(self.name, "is gone") from error
        if _identity(facts) != self._identity:
            raise source_changed(self.name, "was changed")

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor. Calling it again does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _identity(facts: os.stat_result) -> tuple[int, int, int, int]:
    return facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_dev


def _close_quickly(opened: MemorySource | FileSource | None) -> None:
    if isinstance(opened, FileSource):
        opened.close()


def open_file(path: Path | str, name: str, *, check: bool = True) -> FileSource:
    """Open a regular file for reading. Blocking."""
    fd, facts = _open_regular(path, name)
    return FileSource(fd, name, facts, path=path, check=check)


def read_or_open(path: Path | str, *, check: bool = True) -> tuple[bytes, SeenFile] | FileSource:
    """Return all bytes of a file of up to 64 KiB, and as which they were read; a larger one is opened.

    Blocking: microseconds when it is cached.

    Args:
        check: Whether it may not change while it is read; else it may grow, and what it had at first is returned.

    Raises:
        SourceNotFound, SourceUnreadable: It is not there, or no file.
        SourceChanged: It changed while it was read.
    """
    where = os.fspath(path)
    try:
        fd = os.open(where, _READ_FLAGS)
    except (OSError, ValueError) as error:
        raise os_error(error, "source", source=where) from error
    try:
        facts = os.fstat(fd)
        if facts.st_mode & _TYPE_BITS != stat.S_IFREG:
            _refuse_unless_regular(facts, str(path))
        size = facts.st_size
        if size > SMALL_BYTES:
            source = FileSource(fd, str(path), facts, path=path, check=check)
            fd = -1  # it is the source's now
            return source
        data = os.pread(fd, size + 1, 0)
        after = os.fstat(fd) if check else facts
    except OSError as error:
        raise os_error(error, "source", source=str(path)) from error
    finally:
        if fd >= 0:
            os.close(fd)
    # The descriptor stands for one file: only its time and size can change.
    if len(data) > size and not check:
        data = data[:size]
    elif len(data) != size or after.st_mtime_ns != facts.st_mtime_ns or after.st_size != size:
        raise SourceChanged(f"{path}: was changed while being read, upload it again", source=str(path))
    return data, (where, (size, facts.st_mtime_ns, facts.st_ino))


def _open_regular(path: Path | str, name: Path | str) -> tuple[int, os.stat_result]:
    try:
        fd = os.open(path, _READ_FLAGS)
    except (OSError, ValueError) as error:
        raise os_error(error, "source", source=str(name)) from error
    try:
        facts = os.fstat(fd)
        if facts.st_mode & _TYPE_BITS != stat.S_IFREG:
            _refuse_unless_regular(facts, str(name))
    except BaseException:  # closed whatever ended it, then raised again
        os.close(fd)
        raise
    return fd, facts


def _open_path(path: Path | str, check: bool, threads: Threads) -> MemorySource | FileSource:
    """Open *path*; a small file is read and checksummed at once, in the same turn of the thread."""
    found = read_or_open(path, check=check)
    if isinstance(found, FileSource):
        return found
    data, seen = found
    return MemorySource(data, crc32c(data), seen=seen if check else None, threads=threads)


def _refuse_unless_regular(facts: os.stat_result, name: str) -> None:
    if stat.S_ISREG(facts.st_mode):
        return
    if stat.S_ISDIR(facts.st_mode):
        raise SourceUnreadable(f"{name}: is a folder; upload a folder with dataset.upload", source=name)
    raise SourceUnreadable(f"{name}: is a device, pipe or socket; open it and give the open file", source=name)


def _open_region(file: IO[bytes], name: str, check: bool) -> FileSource | None:
    """Return the rest of an open file that is a real one and can be read at any place, else None."""
    inner: Any = getattr(file, "file", file)  # tempfile's wrappers
    raw = inner.raw if isinstance(inner, (io.BufferedReader, io.BufferedRandom)) else inner
    if isinstance(raw, io.FileIO) and raw.closed:
        raise SourceUnreadable(f"{name}: is a closed file; give an open one, or its path", source=name)
    if not isinstance(raw, io.FileIO) or not raw.readable():
        return None
    with os_errors("source", source=name):
        facts = os.fstat(raw.fileno())
        if stat.S_ISDIR(facts.st_mode) or not stat.S_ISREG(facts.st_mode):
            return None
        if isinstance(inner, io.BufferedRandom):
            inner.flush()
            facts = os.fstat(raw.fileno())
        start = inner.tell()
        return FileSource(os.dup(raw.fileno()), name, facts, start=start, check=check)
