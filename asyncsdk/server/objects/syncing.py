"""Two system calls that Python does not offer: making a file system durable at once, and reserving space cheaply."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["make_durable", "reserve"]

_failed_at: set[Path] = set()
"""Folders where syncing a whole file system has failed: from then on it is not relied on there."""

_NOT_SUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV}


@cache
def _libc_function(name: str) -> Any:
    """Return a function of the C library, or None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError, TypeError):  # another C library, or another operating system
        return None


def make_durable(folder: Path, paths: Iterable[Path]) -> None:
    """Return when everything written so far to the file system of *folder* is on disk.

    One ``syncfs`` where there is one, whatever the number of files; else one ``fsync`` for each of *paths* and of the
    folders they lie in. So it is as well once ``syncfs`` has failed: it tells of lost bytes once, to whoever comes
    first, and they may be those of somebody who comes second. A file tells of its own.

    Raises:
        OSError: The disk failed; nothing may be taken as written.

    Source: syncfs(2), Linux 5.8 and later report write errors through it.
    """
    syncfs = _libc_function("syncfs")
    if syncfs is not None and folder not in _failed_at:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if syncfs(descriptor) == 0:
                return
            number = ctypes.get_errno()
            if number not in _NOT_SUPPORTED:
                _failed_at.add(folder)
                raise OSError(number, os.strerror(number), str(folder))
        finally:
            os.close(descriptor)
    files = list(paths)
    folders = {path.parent for path in files}
    # The folder of a day is a name in another folder, and may be as new as its files.
    for path in [*files, *folders, *{path.parent for path in folders}]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def reserve(descriptor: int, size_bytes: int) -> None:
    """Give an open file *size_bytes* of space, so that a full disk shows before the bytes are sent.

    Where the file system cannot reserve, the file is only made that long. ``os.posix_fallocate`` is not used: without
    support it writes to every block.

    Raises:
        OSError: ENOSPC, or the disk failed.
    """
    space = os.fstatvfs(descriptor)
    if space.f_blocks and size_bytes - os.fstat(descriptor).st_blocks * 512 > space.f_bfree * space.f_frsize:
        # Some file systems give what they have before they say that it is not enough, and the file keeps that.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fallocate = _libc_function("fallocate")
    if fallocate is not None and size_bytes:
        result = fallocate(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size_bytes))
        if result == 0:
            return
        number = ctypes.get_errno()
        if number not in _NOT_SUPPORTED:
            raise OSError(number, os.strerror(number))
    if os.fstat(descriptor).st_size < size_bytes:
        os.ftruncate(descriptor, size_bytes)
