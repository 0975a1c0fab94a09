"""Locks between attempts at the parts of an upload, wherever they run: threads of one process or several processes."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["locked"]

# Locks of an open file description, not of a process: threads that opened the file themselves exclude each other.
# Source: fcntl(2), "Open file description locks (non-POSIX)".
_SET_WAIT: int | None = getattr(fcntl, "F_OFD_SETLKW", None)
_LINUX_64 = struct.calcsize("P") == 8 and hasattr(os, "sched_getaffinity")


@contextmanager
def locked(descriptor: int, number: int | None = None) -> Iterator[None]:
    """Hold lock *number* (from 1) of an open file alone, or all of them; waits for whoever holds it.

    Where the system has no such locks, all of them are one (``flock``).
    """
    if _SET_WAIT is not None and _LINUX_64:
        _set(descriptor, fcntl.F_WRLCK, number)
        try:
            yield
        finally:
            _set(descriptor, fcntl.F_UNLCK, number)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _set(descriptor: int, kind: int, number: int | None) -> None:
    assert _SET_WAIT is not None
    start, length = (0, 0) if number is None else (number, 1)  # a length of 0 reaches to the end, wherever that is
    # struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (0 as these locks demand)
    fcntl.fcntl(descriptor, _SET_WAIT, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))
