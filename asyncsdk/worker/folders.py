"""The folders of attempts: made locked, removed at the end, and by the next worker when theirs was killed.

$TMPDIR/asyncsdk-job-<job>-<random>/
    lock       held by the process that works there, for as long as it lives
    work/      the runner's
    inputs/    what was downloaded for it, each file in a folder of its own
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from asyncsdk.os_errors import os_errors

__all__ = ["AttemptFolder", "remove_abandoned"]

_PREFIX = "asyncsdk-job-"
_LOCK = "lock"


class AttemptFolder:
    """The folder of one attempt, this process's until `remove`.

    Attributes:
        work: Where the runner works; empty at first.
        inputs: Where the job's inputs are put.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.work = path / "work"
        self.inputs = path / "inputs"

    @classmethod
    def make(cls, job_id: str) -> Self:
        """Return a new folder among the temporary files of this machine.

        Raises:
            DestinationFull, DestinationUnwritable: It cannot be made.
        """
        with os_errors("destination", destination=tempfile.gettempdir()):
            path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{job_id}-"))
            descriptor = -1
            try:
                # Locked before it has the name that others look for: they would find it free, and remove it all.
                unnamed = path / f"{_LOCK}.new"
                descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with suppress(OSError):  # some file systems have no locks: there nothing is taken for abandoned
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                    unnamed.rename(path / _LOCK)
                folder = cls(path, descriptor)
                folder.work.mkdir()
                folder.inputs.mkdir()
            except BaseException:  # whatever it was, nothing stays
                if descriptor >= 0:
                    os.close(descriptor)
                shutil.rmtree(path, ignore_errors=True)
                raise
        return folder

    def remove(self) -> None:
        """Remove the folder with all that is in it. What cannot be removed stays: it must not end the worker."""
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._descriptor)


def remove_abandoned() -> int:
    """Remove the folders of attempts whose process is gone, of this user and on this machine; returns how many."""
    removed = 0
    try:
        found = [entry for entry in os.scandir(tempfile.gettempdir()) if entry.name.startswith(_PREFIX)]
    except OSError:  # whoever needs a folder there is told
        return 0
    for entry in found:
        with _taken(Path(entry.path)) as is_free:
            if is_free:
                shutil.rmtree(entry.path, ignore_errors=True)
                removed += 1
    return removed


@contextmanager
def _taken(path: Path) -> Iterator[bool]:
    """Hold the lock of a folder whose process is gone; tells whether it is."""
    try:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():  # temporary folders belong to everybody
            yield False
            return
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # gone meanwhile, or being made just now
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody works there
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)
