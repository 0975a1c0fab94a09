"""Walking a folder, lazily and in bounded memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from asyncsdk.engine import Refused
from asyncsdk.engine.temporaries import is_temporary
from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.errors import SourceNotFound, SourceUnreadable
from asyncsdk.os_errors import os_error

__all__ = ["printable", "walk_folder"]

_SORTED_ENTRIES = 20_000
"""Folders up to this size are given in order of name, so that two runs do the same; larger ones as the file system
lists them, because sorting would hold every name of a folder of ten million in memory."""


def walk_folder(folder: Path, paths: PathFilter) -> Iterator[ItemUpload | Refused]:
    """Yield every file below *folder* that *paths* keeps, hidden ones included. Blocking.

    Unfinished files of downloads (`asyncsdk.engine.temporaries`) are no data, and left out.

    Links to files are followed, links to folders are passed over. What cannot be read is a `Refused`.

    Raises:
        SourceNotFound: There is no such folder.
        SourceUnreadable: It is no folder, or cannot be listed.
    """
    if not folder.exists():
        raise SourceNotFound(f"{folder}: there is no such folder", source=str(folder))
    if not folder.is_dir():
        raise SourceUnreadable(f"{folder}: is no folder", source=str(folder))
    try:
        listed = _list(str(folder))
    except OSError as error:
        raise os_error(error, "source", source=str(folder)) from error
    stack: list[tuple[str, Iterator[os.DirEntry[str]]]] = [("", listed)]
    while stack:
        prefix, entries = stack[-1]
        try:
            entry = next(entries, None)
        except OSError as error:  # the folder went away while it was being listed
            stack.pop()
            yield Refused(printable(prefix), os_error(error, "source", source=printable(prefix)))
            continue
        if entry is None:
            stack.pop()
            continue
        path = prefix + entry.name
        try:
            if entry.is_dir(follow_symlinks=False):
                if paths.enters(path):
                    stack.append((f"{path}/", _list(entry.path)))
                continue
            if entry.is_symlink() and entry.is_dir():
                continue
            if is_temporary(entry.name) or not paths.keeps(path):
                continue
            if not entry.is_file():
                yield Refused(printable(path), _not_a_file(entry))
                continue
        except OSError as error:
            shown = printable(path)
            yield Refused(shown, os_error(error, "source", source=shown))
            continue
        yield ItemUpload(Path(entry.path), path)


def printable(name: str) -> str:
    """Return *name* with what is not valid Unicode written as escapes, fit for reports."""
    return name if name.isascii() else name.encode(errors="backslashreplace").decode()


def _list(folder: str) -> Iterator[os.DirEntry[str]]:
    entries = os.scandir(folder)
    first = list(islice(entries, _SORTED_ENTRIES))
    first.sort(key=lambda entry: entry.name)
    return iter(first) if len(first) < _SORTED_ENTRIES else chain(first, entries)


def _not_a_file(entry: os.DirEntry[str]) -> SourceNotFound | SourceUnreadable:
    shown = printable(entry.path)
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        return SourceNotFound(f"{shown}: the link points to nothing", source=shown)
    kind = "a socket" if stat.S_ISSOCK(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
    return SourceUnreadable(f"{shown}: is {kind}, not a file; leave it out with exclude=[...]", source=shown)
