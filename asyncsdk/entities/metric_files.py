"""Files of metrics that could not be sent: ``HOME/metrics/MODEL/*.jsonl``, a JSON list for each value, oldest first.

Whoever writes or sends one holds its lock, which ends with the process: what a killed program left behind can be sent
by another. Everything here blocks.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple, Self

import orjson

from asyncsdk.domain.ids import make_id
from asyncsdk.domain.metrics import check_metric
from asyncsdk.os_errors import os_errors

__all__ = ["KeptFile", "Measured", "kept_folder", "kept_paths"]

_LATEST_MS = 253_402_300_799_999
"""The end of the year 9999, the latest time that a message can say."""


class Measured(NamedTuple):
    """One number as it was measured; the time is in milliseconds since 1970 UTC."""

    name: str
    step: int | None
    value: float
    logged_at_ms: int


def kept_folder(home: Path, model_id: str) -> Path:
    """Return the folder of *home* that holds the files of a model."""
    return home / "metrics" / model_id


def kept_paths(folder: Path) -> list[Path]:
    """Return the files of a folder, oldest first; claim each before it is read."""
    return sorted(folder.glob("*.jsonl"))


class KeptFile:
    """One file, locked for this process.

    Attributes:
        path: Where it is.
        count: Values in it that are still to be sent.
        damaged: Lines that could not be read: a write that was cut off.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.count = 0
        self.damaged = 0
        self._file = file
        self._offset = 0
        self._next_offset = 0
        self._next_count = 0

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Return a new, empty file.

        Raises:
            DestinationFull, DestinationUnwritable: It cannot be made.
        """
        path = folder / f"{make_id()}.jsonl"
        with os_errors("destination", destination=str(path)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Locked before it has the name that others look for: they would claim it, find it empty and remove it.
            unnamed = path.with_suffix(".new")
            file = unnamed.open("x+b", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                unnamed.rename(path)
            except BaseException:  # whatever it was, nothing stays
                file.close()
                unnamed.unlink(missing_ok=True)
                raise
        return cls(path, file)

    @classmethod
    def claim(cls, path: Path) -> Self | None:
        """Return a file that is there; None when somebody else works with it, or it is gone.

        Raises:
            DestinationUnwritable: It cannot be opened.
        """
        with os_errors("destination", destination=str(path)):
            try:
                file = path.open("r+b", buffering=0)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_there = path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))
            except BlockingIOError:
                is_there = False
            if not is_there:  # in use, or removed between the two calls by whoever sent it
                file.close()
                return None
        found = cls(path, file)
        with os_errors("destination", destination=str(path)), path.open("rb") as lines:
            for line in lines:
                is_good = _parsed(line) is not None
                found.count += is_good
                found.damaged += not is_good
        return found

    def append(self, values: Sequence[Measured]) -> None:
        """Write *values* to the end; none of them is there when that fails.

        Raises:
            DestinationFull, DestinationUnwritable: It cannot be written.
        """
        data = b"".join(orjson.dumps(tuple(one), option=orjson.OPT_APPEND_NEWLINE) for one in values)
        with os_errors("destination", destination=str(self.path)):
            end = self._file.seek(0, os.SEEK_END)
            try:
                view = memoryview(data)
                while view:
                    view = view[self._file.write(view) :]
            except OSError:
                self._file.truncate(end)
                raise
        self.count += len(values)

    def read(self, count: int) -> list[Measured]:
        """Return the first values that are to be sent, at most *count*; `advance` when they were sent.

        Raises:
            DestinationUnwritable: It cannot be read.
        """
        found: list[Measured] = []
        self._next_offset = self._offset
        with os_errors("destination", destination=str(self.path)), self.path.open("rb") as lines:
            lines.seek(self._offset)
            while len(found) < count and (line := lines.readline()):
                self._next_offset += len(line)
                if (one := _parsed(line)) is not None:
                    found.append(one)
        self._next_count = len(found)
        return found

    def advance(self) -> None:
        """What was read last was sent.

        Raises:
            DestinationUnwritable: A file that was sent whole cannot be emptied.
        """
        self._offset = self._next_offset
        self.count -= self._next_count
        self._next_count = 0
        if self.count == 0:
            with os_errors("destination", destination=str(self.path)):
                self._file.truncate(0)
            self._offset = 0

    def close(self) -> None:
        """Let go of it. One with nothing left to send is removed; one that was sent in part is cut.

        Raises:
            DestinationFull, DestinationUnwritable: It cannot be removed or cut.
        """
        rest = self.path.with_suffix(".part")
        with self._file, os_errors("destination", destination=str(self.path)):
            if self.count == 0:
                rest.unlink(missing_ok=True)  # of a program that was killed while it cut the file
                self.path.unlink(missing_ok=True)
            elif self._offset:
                with rest.open("wb") as file, self.path.open("rb") as whole:
                    whole.seek(self._offset)
                    shutil.copyfileobj(whole, file)
                rest.replace(self.path)
            # Said, because closing is not enough: a forked child (a worker of a data loader) holds the file open, too.
            fcntl.flock(self._file, fcntl.LOCK_UN)


def _parsed(line: bytes) -> Measured | None:
    """Return what a line says; None when it was cut off or is none of ours."""
    try:
        name, step, value, logged_at_ms = orjson.loads(line)
    except (orjson.JSONDecodeError, TypeError, ValueError):
        return None
    if check_metric(name, step, value) is not None:
        return None
    if not isinstance(logged_at_ms, int) or not 0 <= logged_at_ms <= _LATEST_MS:
        return None
    return Measured(name, step, value, logged_at_ms)
