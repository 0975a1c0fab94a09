"""Checkpoints that wait for their upload in the background: which of them one that comes later replaces."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import SourceChanged, SourceUnreadable
from asyncsdk.os_errors import os_errors

__all__ = ["Snapshot", "SnapshotKind", "SubmittedCheckpoint", "WaitingCheckpoints"]

SnapshotKind = Literal["copy", "open"]
"""How the bytes of a submitted file are held; see `Snapshot`."""

_CLONE = 0x40049409
"""FICLONE of Linux: the copy shares the blocks of the file until one of the two is written."""

_MAX_LOOKS = 3
"""How often a file is copied anew that changed while it was copied."""


class Snapshot:
    """The bytes of a file as they were at one moment.

    ``copy``: a file without a name beside it, so that no crash can leave it behind; where the file system shares blocks
    (btrfs, XFS) that takes no time, elsewhere as long as a copy takes. ``open``: the file itself, held open: right for
    files that are replaced by a rename, and noticed when it is written in place after all. Blocking.

    Attributes:
        file: To be read from the start; closed by `close`.
        size_bytes: Its size.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.file = file
        self._name = name
        facts = os.fstat(file.fileno())
        self.size_bytes = facts.st_size
        self._identity = _identity(facts)

    @classmethod
    def take(cls, path: Path, kind: SnapshotKind) -> Snapshot:
        """Return a snapshot of the file.

        Raises:
            SourceNotFound, SourceUnreadable: It is not there, or no file.
            SourceChanged: It was written all the time while it was copied.
            DestinationFull, DestinationUnwritable: There is no room for the copy.
        """
        with os_errors("source", source=str(path)):
            opened = path.open("rb")
        try:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise SourceUnreadable(f"{path}: is no file", source=str(path))
            if kind == "open":
                return cls(opened, str(path))
            copied = cls(_copied(opened, path), str(path))
        except BaseException:  # the file is closed whatever went wrong
            opened.close()
            raise
        opened.close()
        return copied

    def check_unchanged(self) -> None:
        """Raise `SourceChanged` when the bytes are not those of that moment any more."""
        if _identity(os.fstat(self.file.fileno())) != self._identity:
            raise SourceChanged(
                f"{self._name}: was written in place before it was sent; save under another name and rename, or use "
                "snapshot='copy'",
                source=self._name,
            )

    def close(self) -> None:
        """Give the bytes up. Calling it again does nothing."""
        self.file.close()


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_size, facts.st_mtime_ns


def _copied(source: IO[bytes], path: Path) -> IO[bytes]:
    for _ in range(_MAX_LOOKS):
        before = _identity(os.fstat(source.fileno()))
        with os_errors("destination", destination=f"a copy of {path}"):
            copy = tempfile.TemporaryFile(dir=path.parent, prefix=f".{path.name[:100]}.")  # noqa: SIM115  # the caller's
        try:
            _copy_bytes(source, copy, path)
            if _identity(os.fstat(source.fileno())) == before:
                return copy
        except BaseException:  # no copy stays open, whatever went wrong
            copy.close()
            raise
        copy.close()
    raise SourceChanged(f"{path}: was written while it was copied", source=str(path))


def _copy_bytes(source: IO[bytes], copy: IO[bytes], path: Path) -> None:
    if _is_cloned(source, copy):
        return
    with os_errors("destination", destination=f"a copy of {path}"):
        source.seek(0)
        shutil.copyfileobj(source, copy, 8 * 1024 * 1024)
        copy.flush()
        copy.seek(0)


def _is_cloned(source: IO[bytes], copy: IO[bytes]) -> bool:
    try:
        fcntl.ioctl(copy.fileno(), _CLONE, source.fileno())
    except OSError:  # a file system that shares no blocks; the bytes are copied
        return False
    return True


@dataclass(slots=True, eq=False)
class SubmittedCheckpoint:
    """One that was submitted.

    Attributes:
        path: The file it was taken of.
        facts: Other fields of the commit.
        snapshot: Its bytes; None when they could not be taken.
        attempts: Uploads begun.
        error: Of the last attempt.
        note: What was left out of it.
        checkpoint_id: What it becomes, by whichever attempt.
    """

    path: Path
    facts: Mapping[str, Any]
    snapshot: Snapshot | None = None
    attempts: int = 0
    error: Exception | None = None
    note: str = ""
    checkpoint_id: str = field(default_factory=make_id)

    @property
    def is_best(self) -> bool:
        """Whether it is the best so far."""
        return bool(self.facts.get("is_best"))

    @property
    def is_final(self) -> bool:
        """Whether it is the result."""
        return bool(self.facts.get("is_final"))


class WaitingCheckpoints:
    """Checkpoints not yet begun, in order: final ones, at most one best, at most one that is neither."""

    def __init__(self) -> None:
        self._waiting: list[SubmittedCheckpoint] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[SubmittedCheckpoint]:
        return iter(self._waiting)

    def put(self, one: SubmittedCheckpoint) -> list[SubmittedCheckpoint]:
        """Add one that is newer than all; return those that it replaces.

        A plain one replaces a plain one. A best one replaces plain ones and the best before. A final one replaces plain
        ones. Final ones are never replaced.
        """
        replaced = [old for old in self._waiting if _replaces(one, old)]
        self._waiting = [old for old in self._waiting if old not in replaced]
        self._waiting.append(one)
        return replaced

    def put_back(self, one: SubmittedCheckpoint) -> bool:
        """Put one back that was begun and failed, before all others; False when a newer one takes its place."""
        if any(_replaces(newer, one) for newer in self._waiting):
            return False
        self._waiting.insert(0, one)
        return True

    def first(self, *, only_final: bool) -> SubmittedCheckpoint | None:
        """Take the one that is to be sent next: in order, of final ones if only those; None when there is none."""
        for index, one in enumerate(self._waiting):
            if one.is_final or not only_final:
                return self._waiting.pop(index)
        return None

    def has_final(self) -> bool:
        """Whether a final one waits."""
        return any(one.is_final for one in self._waiting)

    def clear(self) -> list[SubmittedCheckpoint]:
        """Take them all."""
        left, self._waiting = self._waiting, []
        return left


def _replaces(new: SubmittedCheckpoint, old: SubmittedCheckpoint) -> bool:
    if old.is_final:
        return False
    return new.is_best if old.is_best else True
