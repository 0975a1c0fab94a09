"""A system call that Python does not offer: renaming a file to a name that nothing has yet."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import Any

__all__ = ["rename_new"]

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
_NO_LINKS = {*_NOT_SUPPORTED, errno.EPERM, errno.EACCES, errno.EMLINK}


@cache
def _renameat2() -> Any:
    """Return the C library's function, or None where it has none."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # another C library, or another operating system
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function


def rename_new(source: str, target: str) -> bool:
    """Rename a file unless something has the name *target* already; False then, and nothing is changed.

    Looking and renaming are one step where the system can do it (Linux, and most of its file systems). Elsewhere the
    file gets a second name and loses the first one: a crash in between leaves both. Only without hard links another
    process may make the name in between, and loses what it made.

    Raises:
        OSError: The file cannot be renamed.

    Source: renameat2(2), RENAME_NOREPLACE; link(2).
    """
    renameat2 = _renameat2()
    if renameat2 is not None:
        if renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
            return True
        number = ctypes.get_errno()
        if number == errno.EEXIST:
            return False
        if number not in _NOT_SUPPORTED:
            raise OSError(number, os.strerror(number), source, None, target)
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        os.unlink(source)  # noqa: PTH108  # names come as text
        return True
    if os.path.lexists(target):
        return False
    os.rename(source, target)  # noqa: PTH104  # names come as text
    return True
