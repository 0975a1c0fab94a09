"""Where downloads go: a file that appears only when it is whole, or memory."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from asyncsdk.checksums import Crc32c
from asyncsdk.engine.temporaries import temporary_name
from asyncsdk.errors import DestinationUnwritable, IncompleteTransfer
from asyncsdk.os_errors import os_error, os_errors

__all__ = ["KEPT_BYTES", "BufferSink", "MemoryStore", "PartFile", "SpoolFile", "StoreSink"]

KEPT_BYTES = 256 * 1024
"""Up to here a download is kept and written in one go when it is whole: one turn of a thread per small file."""

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class PartFile:
    """A temporary file beside its destination, renamed when it is whole. All methods block.

    Mode by umask, parents made. `discard` leaves nothing of it, whatever happened before; after `publish` it does
    nothing.
    """

    def __init__(self, destination: Path | str) -> None:
        self._path = str(destination)
        self._temporary: str | None = None
        self._fd = -1

    @property
    def destination(self) -> Path:
        """Where it will appear."""
        return Path(self._path)

    def check(self) -> None:
        """Raise when the destination can be seen to be impossible, before anything is fetched.

        A link is no folder, wherever it leads: it is replaced, never followed.
        """
        if self.destination.is_dir() and not self.destination.is_symlink():
            raise DestinationUnwritable(
                f"{self.destination}: is a folder; give the path of the file to be", destination=self._path
            )

    def open(self) -> bool:
        """Make the temporary file, or open it again; returns whether it was there already."""
        if self._fd >= 0:
            return True
        with os_errors("destination", destination=self._path):
            if self._temporary is not None:
                self._fd = os.open(self._temporary, os.O_RDWR | os.O_CLOEXEC)
                return True
            self.check()
            self._make()
            return False

    def _make(self) -> None:
        temporary = self._beside()
        try:
            self._fd = os.open(temporary, _NEW_FILE, 0o666)
        except FileNotFoundError:
            self.destination.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(temporary, _NEW_FILE, 0o666)
        self._temporary = temporary

    def _beside(self) -> str:
        start = self._path.rfind(os.sep) + 1  # a Path costs as much as making the file
        return self._path[:start] + temporary_name(self._path[start:])

    @property
    def temporary(self) -> str:
        """The path of the temporary file; empty when there is none."""
        return self._temporary or ""

    def adopt(self, temporary: str, size_bytes: int) -> bool:
        """Go on with a temporary file that another process left; False: it is not there, or not such a file.

        Args:
            temporary: Its path.
            size_bytes: What it has at most.
        """
        try:
            fd = os.open(temporary, os.O_RDWR | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
        except (OSError, ValueError):  # gone, or closed to us: there is nothing to go on with
            return False
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > size_bytes:
            os.close(fd)
            return False
        self._temporary, self._fd = temporary, fd
        return True

    def leave(self) -> None:
        """Close the temporary file and leave it where it is; from now on it is no concern of this object."""
        fd, self._fd, self._temporary = self._fd, -1, None
        if fd >= 0:
            with os_errors("destination", destination=self._path):
                os.close(fd)

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of *data* at *offset*."""
        try:
            written = os.pwrite(self._fd, data, offset)
            while written < len(data):
                written += os.pwrite(self._fd, memoryview(data)[written:], offset + written)
        except OSError as error:  # as `os_errors` does, without its 2 us for each piece of a body
            raise os_error(error, "destination", destination=self._path) from error

    @property
    def is_begun(self) -> bool:
        """Whether there is a temporary file."""
        return self._temporary is not None

    def put(self, data: bytes, *, looks: bool = False) -> tuple[int, int, int] | None:
        """Make, fill and publish the file in one go; nothing was written to it before.

        Args:
            looks: Whether to return size, mtime (ns) and inode of the file, found out while it is open: by name, later,
                costs half as much again, or several times as much with a long path.
        """
        destination = self._path
        try:
            temporary = self._beside()
            try:
                fd = os.open(temporary, _NEW_FILE, 0o666)
            except FileNotFoundError:
                self.destination.parent.mkdir(parents=True, exist_ok=True)
                fd = os.open(temporary, _NEW_FILE, 0o666)
            self._temporary, self._fd = temporary, fd
            written = os.pwrite(fd, data, 0)
            while written < len(data):
                written += os.pwrite(fd, memoryview(data)[written:], written)
            facts = os.fstat(fd) if looks else None
            self._fd = -1
            os.close(fd)  # some file systems report a full disk only now
            os.replace(temporary, destination)  # noqa: PTH105
            self._temporary = None
        except (OSError, ValueError) as error:
            if isinstance(error, IsADirectoryError):
                self.check()
            raise os_error(error, "destination", destination=destination) from error
        return None if facts is None else (len(data), facts.st_mtime_ns, facts.st_ino)

    def truncate(self, size_bytes: int) -> None:
        """Cut or extend it to *size_bytes*."""
        with os_errors("destination", destination=self._path):
            os.ftruncate(self._fd, size_bytes)

    def read_at(self, size_bytes: int, offset: int) -> bytes:
        """Return up to *size_bytes* of what was written at *offset*."""
        with os_errors("destination", destination=self._path):
            return os.pread(self._fd, size_bytes, offset)

    def pause(self) -> None:
        """Close the descriptor but keep what was written; `open` goes on."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with os_errors("destination", destination=self._path):
                os.close(fd)

    def publish(self, path: Path | str | None = None) -> None:
        """Rename into place, to *path* when it could not be known before: now the object is there, whole."""
        self.pause()  # some file systems report a full disk only now
        assert self._temporary is not None
        path = path or self._path
        with os_errors("destination", destination=str(path)):
            os.replace(self._temporary, path)  # noqa: PTH105
        self._temporary = None

    def discard(self) -> None:
        """Remove what is left.

        Raises:
            DestinationUnwritable: The system does not let go of it; calling this again does nothing.
        """
        fd, self._fd = self._fd, -1
        temporary, self._temporary = self._temporary, None
        if fd < 0 and temporary is None:
            return
        with os_errors("destination", destination=str(self.destination)):
            try:
                if fd >= 0:
                    os.close(fd)
            finally:
                if temporary is not None:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary)  # noqa: PTH108


class SpoolFile(PartFile):
    """A temporary file without a name, readable by nobody else: what passes through leaves nothing, even when killed.

    It is never published, and pausing it would lose it.
    """

    def __init__(self) -> None:
        super().__init__(Path(tempfile.gettempdir()))

    def check(self) -> None:
        """Its folder is meant to be one."""

    def _make(self) -> None:
        with tempfile.TemporaryFile(buffering=0) as file:
            self._fd = os.dup(file.fileno())


class MemoryStore:
    """Memory for an object of known size; parts may be written in any order, from any thread."""

    def __init__(self, size_bytes: int) -> None:
        self._buffer = io.BytesIO()
        if size_bytes:
            self._buffer.seek(size_bytes - 1)
            self._buffer.write(b"\0")
        self._view = self._buffer.getbuffer()

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Put *data* at *offset*."""
        self._view[offset : offset + len(data)] = data

    def read_at(self, size_bytes: int, offset: int) -> bytes:
        """Return a copy of up to *size_bytes* of what was put at *offset*."""
        return bytes(self._view[offset : offset + size_bytes])

    def take(self) -> bytes:
        """Return all of it, without another copy (a `BytesIO` hands out the buffer it wrote to)."""
        self._view.release()
        return self._buffer.getvalue()


class StoreSink:
    """Writes the body of one reply at its place in a file or in memory, checksummed."""

    def __init__(self, store: PartFile | MemoryStore, start: int, size_bytes: int, *, source: str, part: int) -> None:
        self._store = store
        self._start = start
        self._expected = size_bytes
        self._source = source
        self._part = part
        self.checksum = Crc32c()

    def write(self, data: bytes | memoryview) -> None:
        offset = self.checksum.size_bytes
        if offset + len(data) > self._expected:
            raise IncompleteTransfer(
                self._expected, offset + len(data), source=self._source, part=self._part, bytes_done=offset
            )
        self._store.write_at(data, self._start + offset)
        self.checksum.update(data)

    def check_whole(self) -> None:
        """Raise unless all bytes came."""
        if self.checksum.size_bytes != self._expected:
            raise IncompleteTransfer(self._expected, self.checksum.size_bytes, source=self._source, part=self._part)


class BufferSink:
    """Takes a body of any size in order: kept in pieces while small, then written to a file, or to one buffer.

    Memory: what came, once. The buffer may grow by an eighth more, which is given back at the end.

    Args:
        file: Takes what is too much to keep; None: memory does.

    Attributes:
        limit_bytes: What it takes at most; None: anything.
        tell: Handed everything that comes, too, before it is kept or written; None: nobody.
    """

    def __init__(self, file: PartFile | None = None) -> None:
        self.file = file
        self.checksum = Crc32c()
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._written = 0
        self._stale = file is not None
        self._memory: io.BytesIO | None = None
        self.limit_bytes: int | None = None
        self._beyond: Callable[[int], Exception] | None = None
        self.tell: Callable[[bytes | memoryview], None] | None = None

    def limit(self, size_bytes: int, beyond: Callable[[int], Exception]) -> None:
        """Take no more than *size_bytes*: what would be beyond raises what *beyond* returns for the size seen."""
        self.limit_bytes, self._beyond = size_bytes, beyond

    def write(self, data: bytes | memoryview) -> None:
        size = len(data)
        if self.limit_bytes is not None and self.checksum.size_bytes + size > self.limit_bytes:
            assert self._beyond is not None
            raise self._beyond(self.checksum.size_bytes + size)
        if self.tell is not None:
            self.tell(data)
        if self.file is not None and size >= KEPT_BYTES // 2:
            self.checksum.update(data)
            self._write_through(self.file, data)
            return
        if not isinstance(data, bytes):
            data = bytes(data)  # a view is good for this call only
        self.checksum.update(data)
        self._kept.append(data)
        self._kept_bytes += size
        if self._kept_bytes > KEPT_BYTES:
            if self.file is not None:
                self.flush()
            else:
                self._gather()

    def _write_through(self, file: PartFile, data: bytes | memoryview) -> None:
        self.flush()
        file.write_at(data, self._written)
        self._written += len(data)

    def flush(self) -> None:
        """Write what is kept. Blocking."""
        assert self.file is not None
        was_there = self.file.open()
        if self._stale:
            self._stale = False
            if was_there:
                self.file.truncate(0)  # what an attempt before this one left
        if self._kept:
            data = self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
            self.file.write_at(data, self._written)
            self._written += len(data)
            self._kept, self._kept_bytes = [], 0

    def _gather(self) -> None:
        # Joining all pieces at the end would hold the object twice.
        if self._memory is None:
            self._memory = io.BytesIO()
        self._memory.writelines(self._kept)
        self._kept, self._kept_bytes = [], 0

    @property
    def is_kept(self) -> bool:
        """Whether everything that came is still in memory, and no file was begun."""
        return not self._written and self._stale

    def take(self) -> bytes:
        """Return what was kept, whole."""
        if self._memory is None:
            return self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
        self._gather()
        memory, self._memory = self._memory, None
        return memory.getvalue()  # the buffer itself: nothing else refers to it
