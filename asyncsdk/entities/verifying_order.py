"""Walking a folder in the order in which a platform lists paths, in bounded memory whatever the size of a folder.

Paths are ordered by their bytes, as a listing sorted by ``path`` is: so folder and dataset can be compared side by
side. A folder with very many names is sorted in runs that are kept in a temporary file and merged while they are read.
"""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from asyncsdk.engine import Refused
from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.walking import printable
from asyncsdk.errors import SourceNotFound, SourceUnreadable
from asyncsdk.os_errors import os_error

__all__ = ["LocalPath", "walk_in_order"]

_RUN_NAMES = 20_000
"""Names that are sorted in memory at once, a few MiB."""

_READ_BYTES = 16 * 1024
"""Read of a run at once: of ten million names there are 500 runs, which then hold 8 MiB."""


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A file found in a folder.

    Attributes:
        key: The bytes of its path, by which it is ordered.
        path: POSIX path below the folder.
    """

    key: bytes
    path: str


def walk_in_order(folder: Path, paths: PathFilter) -> Generator[LocalPath | Refused, None, None]:
    """Yield every file below *folder* that *paths* keeps in the order of its path's bytes. Blocking.

    Hidden files are included, links to folders are passed over, links to files and special files are given: whoever
    opens them finds out. A folder that cannot be listed is a `Refused` whose ``key`` is the bytes of its path with a
    slash behind it. Memory: 20,000 names, and 16 KiB for each
    further 20,000 of the folders that are open.

    Raises:
        SourceNotFound: There is no such folder.
        SourceUnreadable: It is no folder, or cannot be listed.
    """
    if not folder.exists():
        raise SourceNotFound(f"{folder}: there is no such folder", source=str(folder))
    if not folder.is_dir():
        raise SourceUnreadable(f"{folder}: is no folder", source=str(folder))
    top = os.fsencode(folder)
    stack: list[tuple[bytes, Iterator[bytes]]] = [(b"", _sorted_names(top))]
    try:
        while stack:
            prefix, names = stack[-1]
            try:
                name = next(names, None)
            except OSError as error:
                shown = printable(os.fsdecode(prefix)) or str(folder)
                failure = os_error(error, "source", source=shown)
                if not prefix:
                    raise failure from error
                stack.pop()
                yield Refused(shown, failure, prefix)
                continue
            if name is None:
                stack.pop()
                continue
            key = prefix + name
            path = os.fsdecode(key)
            if name.endswith(b"/"):
                if paths.enters(path[:-1]):
                    stack.append((key, _sorted_names(os.path.join(top, key))))  # noqa: PTH118  # bytes
            elif paths.keeps(path):
                yield LocalPath(key, path)
    finally:
        for _, names in stack:
            names.close()  # type: ignore[attr-defined]  # a generator, which may hold a temporary file


def _sorted_names(folder: bytes) -> Iterator[bytes]:
    """Yield the names in *folder* in order; those of folders end with a slash, which is how they sort in paths."""
    with os.scandir(folder) as entries:
        names = _names(entries)
        first = sorted(islice(names, _RUN_NAMES))
        rest = None if len(first) < _RUN_NAMES else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed below
        try:
            runs: list[tuple[int, int]] = []
            if rest is not None:
                while run := sorted(islice(names, _RUN_NAMES)):
                    runs.append(_write_run(rest, run))
        except BaseException:  # the folder, or the disk of temporary files, failed: raised again
            if rest is not None:
                rest.close()
            raise
    if rest is None:
        yield from first
        return
    with rest:
        yield from heapq.merge(first, *(_read_run(rest, start, stop) for start, stop in runs))


def _names(entries: Iterator[os.DirEntry[bytes]]) -> Iterator[bytes]:
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield entry.name + b"/"
        elif not (entry.is_symlink() and _leads_to_folder(entry)):
            yield entry.name


def _leads_to_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or into a closed folder: opening it will tell
        return False


def _write_run(file: IO[bytes], names: list[bytes]) -> tuple[int, int]:
    start = file.tell()
    left = memoryview(b"\0".join(names))
    while left:
        left = left[file.write(left) :]
    return start, file.tell()


def _read_run(file: IO[bytes], start: int, stop: int) -> Iterator[bytes]:
    rest = b""
    while start < stop:
        file.seek(start)  # the other runs read the same file
        data = file.read(min(_READ_BYTES, stop - start))
        if not data:
            raise OSError("a temporary file was cut off")
        start += len(data)
        *names, rest = (rest + data).split(b"\0")
        yield from names
    yield rest
