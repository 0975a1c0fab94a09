"""The lock on a journal: held while it is open, and given back by the kernel however its process ends.

The journal is on a local disk, so one kernel knows all who may hold it, whatever they call their host and their
processes: containers do as they like with both. The lock is on a file of its own beside the journal, since closing any
descriptor of a file that SQLite has open would take SQLite's locks away. Where the system has no such locks, whose the
journal is goes by its row alone.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

try:
    import fcntl
except ImportError:  # not POSIX: the row of the run then says whose it is
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True

__all__ = ["RunLock", "is_free", "lock_path"]

_TRIES = 4
_BETWEEN_SECONDS = 0.02
"""Whoever lists journals holds the lock for some microseconds."""

_guard = threading.Lock()
_descriptors: set[int] = set()
"""Of this process: a child that was forked closes them, or it would hold the locks on when this process is gone."""
_paths: set[Path] = set()
"""Held by this process where the system has no locks."""


def lock_path(path: Path) -> Path:
    """Return the file whose lock is that of the journal *path*."""
    return path.with_name(f"{path.name}-lock")


class RunLock:
    """The lock of one journal, held. Made by `take`.

    Attributes:
        is_of_system: Whether the kernel knows of it. Else it only holds off others of this process.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._file = lock_path(path)
        self._descriptor = descriptor
        self._is_held = True
        self._pid = os.getpid()
        self.is_of_system = descriptor is not None

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Return the lock of the journal *path*; None while somebody has it. Blocking, some 0.1 s at most.

        Raises:
            OSError: Its file cannot be made.
        """
        file = lock_path(path)
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_BETWEEN_SECONDS)
            descriptor = _opened(file, os.O_RDWR | os.O_CREAT)
            try:
                is_taken = _lock(descriptor, is_shared=False)
                if is_taken is None:
                    _close(descriptor)
                    return cls._of_process(path)
                if is_taken and _is_named(file, descriptor):
                    return cls(path, descriptor)
            except BaseException:  # closed whatever ended it, then raised again
                _close(descriptor)
                raise
            _close(descriptor)  # somebody's, or removed with a journal that ended this moment
        return None

    @classmethod
    def _of_process(cls, path: Path) -> Self | None:
        file = lock_path(path)
        with _guard:
            if file in _paths:
                return None
            _paths.add(file)
        return cls(path, None)

    def release(self) -> None:
        """Give it back, and remove its file if there is no such journal (any more).

        Calling it again does nothing; nor does it in a child of the process that took it.
        """
        descriptor, self._descriptor = self._descriptor, None
        if os.getpid() != self._pid or not self._is_held:
            return
        self._is_held = False
        with suppress(OSError):  # closed to us by now: whoever tidies up removes it
            # Removed with its journal, its name may be of somebody else's by now.
            if not self._path.exists() and (descriptor is None or _is_named(self._file, descriptor)):
                self._file.unlink(missing_ok=True)
        if descriptor is not None:
            with suppress(OSError):  # closing does it as well, unless something that nobody knows of was forked
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            _close(descriptor)
        else:
            with _guard:
                _paths.discard(self._file)


def is_free(path: Path) -> bool | None:
    """Whether nobody holds the lock of the journal *path*; None: the system cannot tell. Blocking."""
    file = lock_path(path)
    try:
        descriptor = _opened(file, os.O_RDONLY)
    except FileNotFoundError:
        return True if _HAS_LOCKS else None
    except OSError:  # closed to us
        return None
    try:
        return _lock(descriptor, is_shared=True)
    finally:
        _close(descriptor)


def _lock(descriptor: int, *, is_shared: bool) -> bool | None:
    """Try to lock; None: the system, or this file system, has no such locks."""
    if not _HAS_LOCKS:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in {errno.EWOULDBLOCK, errno.EACCES} else None
    return True


def _opened(file: Path, flags: int) -> int:
    with _guard:
        descriptor = os.open(file, flags | getattr(os, "O_CLOEXEC", 0), 0o600)
        _descriptors.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    with _guard:
        _descriptors.discard(descriptor)
        os.close(descriptor)


def _is_named(file: Path, descriptor: int) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _let_go() -> None:
    """In a child that was just forked: what the parent holds is not ours."""
    for descriptor in _descriptors:
        with suppress(OSError):  # it was being closed
            os.close(descriptor)
    _descriptors.clear()
    _paths.clear()
    _guard.release()


if hasattr(os, "register_at_fork"):
    # Held over the fork: no thread is half-way between opening a file and saying so.
    os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_let_go)
