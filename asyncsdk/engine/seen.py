"""Small files that were read before they are sent: whether they still are what was read."""

from __future__ import annotations

import os

from asyncsdk.errors import SourceChanged

__all__ = ["SeenFile", "check_seen", "source_changed"]

SeenFile = tuple[str, tuple[int, int, int]]
"""Path of a file that was read; size, mtime (ns) and inode that it had then. Plain tuples: every file has one."""


def check_seen(seen: SeenFile) -> None:
    """Raise `SourceChanged` when a file is not what it was when it was read. Blocking: 1 us on a local disk."""
    path, identity = seen
    try:
        facts = os.stat(path)  # noqa: PTH116  # pathlib's way costs 3 us more, for each of ten million files
    except OSError as error:
        raise source_changed(path, "is gone") from error
    if (facts.st_size, facts.st_mtime_ns, facts.st_ino) != identity:
        raise source_changed(path, "was changed")


def source_changed(name: str, what: str) -> SourceChanged:
    """Return the error of a file that changed after it was read or opened."""
    return SourceChanged(f"{name}: {what} while being sent, upload it again", source=name)
