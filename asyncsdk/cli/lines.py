"""Writing lines to a file on a thread of its own: the event loop never waits for a disk."""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import IO

from asyncsdk.errors import os_error

__all__ = ["LineWriter"]

_QUEUED_LINES = 10_000


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
        self._lines: queue.Queue[bytes | None] = queue.Queue(_QUEUED_LINES)
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
            data = memoryview(b"".join(line for line in batch if line is not None))
            try:
                while data and self._error is None:
                    data = data[self._file.write(data) :]
            except OSError as error:
                self._error = error
