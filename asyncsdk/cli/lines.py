"""Writing lines to a file on a thread of its own: the event loop never waits for a disk. One run at a time does."""

from __future__ import annotations

import errno
import os
import queue
import stat
import threading
from pathlib import Path
from typing import IO

from asyncsdk.errors import ConfigError
from asyncsdk.os_errors import os_error, os_errors

__all__ = ["LineWriter", "claim", "open_alone"]

_QUEUED_LINES = 10_000


def open_alone(path: Path) -> IO[bytes]:
    """Open *path* for lines of this process alone, and empty it: made when missing, and left alone when it is taken.

    Pipes and devices are opened as they are; so are files of a file system that knows no locks.

    Raises:
        ConfigError: Another run writes it.
        DestinationUnwritable, DestinationFull: It cannot be written.
    """
    with os_errors("destination", destination=str(path)):
        return os.fdopen(_open_claimed(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, is_emptied=True), "wb", 0)


def claim(path: Path) -> int:
    """Keep other runs from writing the file at *path* until the descriptor that this returns is closed.

    Raises:
        ConfigError: Another run writes it.
        DestinationUnwritable: It cannot be opened.
    """
    with os_errors("destination", destination=str(path)):
        return _open_claimed(path, os.O_RDONLY, is_emptied=False)


def _open_claimed(path: Path, flags: int, *, is_emptied: bool) -> int:
    while True:
        descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                _lock(descriptor, path)
                if not _is_at(descriptor, path):  # whoever held it put another in its place
                    os.close(descriptor)
                    continue
                if is_emptied:
                    os.ftruncate(descriptor, 0)
        except BaseException:  # whatever it was, no descriptor stays open; then raised again
            os.close(descriptor)
            raise
        return descriptor


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two runs with one report are the user's to avoid
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            raise ConfigError(f"{path}: another run writes it; wait for that one, or name another file") from None
        # Another number: a file system without locks. Appending keeps the lines of both whole.


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


class LineWriter:
    """Writes lines as they come; whoever writes waits only when the disk is 10,000 lines behind.

    Lines are handed to the operating system at once, so that a killed process loses a line at most.

    Args:
        file: Opened without a buffer; closed by `close`.
        path: What to call it in errors.
        name: What to call the thread.
    """

    def __init__(self, file: IO[bytes], path: Path, name: str) -> None:
        self._file = file
        self._path = path
        self._error: OSError | None = None
        self._lines: queue.Queue[bytes | threading.Event | None] = queue.Queue(_QUEUED_LINES)
        self._thread = threading.Thread(target=self._write_all, name=name, daemon=True)
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """Whether a line could not be written."""
        return self._error is not None

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more lines."""
        return self._file.closed

    def write(self, line: bytes) -> None:
        """Add one line, with its end."""
        self._lines.put(line)

    def wait(self) -> None:
        """Wait until the lines that were added are with the operating system, or one could not be written. Blocking."""
        written = threading.Event()
        self._lines.put(written)
        written.wait()

    def close(self, *, is_durable: bool = False) -> None:
        """Write what is left and close the file. Calling it again does nothing.

        Args:
            is_durable: Whether to wait until it survives a loss of power: it is about to replace something.
        """
        if not self._file.closed:
            self._lines.put(None)
            self._thread.join()
            if is_durable and self._error is None:
                try:
                    os.fsync(self._file.fileno())
                except OSError as error:
                    self._error = error
            self._file.close()

    def check(self) -> None:
        """Raise when an earlier line could not be written.

        Raises:
            DestinationFull, DestinationUnwritable: It could not.
        """
        if self._error is not None:
            raise os_error(self._error, "destination", destination=str(self._path)) from self._error

    def _write_all(self) -> None:
        """Write until told to stop. After an error lines are dropped, so that nobody waits for room in the queue."""
        is_open = True
        while is_open:
            batch = [self._lines.get()]
            while len(batch) < 1000 and not self._lines.empty():
                batch.append(self._lines.get())
            if batch[-1] is None:
                is_open = False
                batch.pop()
            data = memoryview(b"".join(line for line in batch if isinstance(line, bytes)))
            try:
                while data and self._error is None:
                    data = data[self._file.write(data) :]
            except OSError as error:
                self._error = error
            for waiting in batch:
                if isinstance(waiting, threading.Event):
                    waiting.set()
