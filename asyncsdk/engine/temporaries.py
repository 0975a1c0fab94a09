"""Names of unfinished files: unique, hidden, and never mistaken for a file of somebody else.

``.NAME.asyncsdk-MARKCOUNT.part`` stands beside the NAME that it becomes. The mark is 12 hexadecimal digits, one per
process, so that whoever goes on after a kill finds what the killed one left; a worker process has that of its parent,
and its own number between two ``w``. Looking through a folder for data, files of such a name are left out.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets

__all__ = ["has_mark", "is_temporary", "process_mark", "temporary_name", "use_mark", "worker_mark"]

_MAX_NAME_BYTES = 255
_OURS = ".asyncsdk-"
_ENDING = ".part"
_PATTERN = re.compile(r"\..*\.asyncsdk-[0-9a-f]{12}(?:w[0-9a-f]+w)?[0-9a-f]+\.part", re.DOTALL)

_mark = secrets.token_hex(6)
_count = itertools.count()
_worker_count = itertools.count()


def temporary_name(name: str) -> str:
    """Return a name for the unfinished form of *name*, unique, hidden, and no longer than a file name may be."""
    # Unique by the random mark of this process and a count: asking for random bytes costs more than making the file.
    tail = f"{_OURS}{_mark}{next(_count):x}{_ENDING}"
    if len(name) + len(tail) < _MAX_NAME_BYTES and name.isascii():
        return f".{name}{tail}"
    kept = os.fsencode(name)[: _MAX_NAME_BYTES - len(tail) - 1]
    # Cut between characters: some file systems take UTF-8 only.
    while kept and len(os.fsencode(name)) > len(kept) and not _is_whole(kept):
        kept = kept[:-1]
    return os.fsdecode(b"." + kept + tail.encode())


def is_temporary(name: str) -> bool:
    """Whether a file called *name* is an unfinished one of ours."""
    return name.endswith(_ENDING) and _PATTERN.fullmatch(name) is not None


def has_mark(name: str, mark: str) -> bool:
    """Whether a file called *name* is an unfinished one of the process with *mark*, or of its worker processes."""
    return f"{_OURS}{mark}" in name and is_temporary(name)


def process_mark() -> str:
    """Return the mark of this process."""
    return _mark


def worker_mark() -> str:
    """Return a mark for another worker process of this one: `has_mark` knows its files by either mark."""
    return f"{_mark}w{next(_worker_count):x}w"


def use_mark(mark: str) -> None:
    """Put *mark* into all names that `temporary_name` gives from now on, so that somebody else can find the files."""
    global _mark  # noqa: PLW0603  # one per process
    _mark = mark


def _renew_mark() -> None:
    use_mark(secrets.token_hex(6))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_mark)


def _is_whole(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason != "unexpected end of data"
    return True
